r"""The largest eigenvalues of a loss's Hessian, and the learning rate at which it turns unstable.

>>> import jax, jax.numpy as jnp
>>> from noisegen import diagnostics
>>> def loss(params):
...     return 4 * params["w"] ** 2 / 2 + params["b"] ** 2 / 2
>>> params = {"w": jnp.float32(3), "b": jnp.float32(1)}
>>> found = jax.jit(lambda p: diagnostics.hessian_eigenvalues(loss, p, jax.random.key(0)))(params)
>>> print(f"{found.values[0]:.3f} {diagnostics.critical_learning_rate(found.values[0]):.3f}")
4.000 0.500

References:
  Golub & Van Loan, *Matrix Computations*, 4th edition, 2013, section 10.1 (Lanczos, its error
  bound); Smith et al., `Don't Decay the Learning Rate, Increase the Batch Size
  <https://arxiv.org/abs/1711.00489>`_, 2018 (critical learning rate)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.diagnostics import interpolation

PyTree = Any

# What float32 leaves of a Hessian-vector product: smaller parts of |H| are taken for zero.
_ROUNDING = 2.0**-17


class HessianEigenvalues(NamedTuple):
    """Eigenvalues, the largest first, and how far off each may be."""

    values: jax.Array  # shape (k,), float32
    errors: jax.Array  # shape (k,), float32: an eigenvalue of H lies within this of each value


def hessian_eigenvalues(
    loss: Callable[[PyTree], jax.Array],
    params: PyTree,
    key: jax.Array,
    *,
    num_eigenvalues: int = 1,
    num_iterations: int = 32,
) -> HessianEigenvalues:
    r"""Algebraically largest eigenvalues of the Hessian of a loss, by the Lanczos method.

    From a normal start vector, m Hessian-vector products give an orthonormal basis V and

    .. math:: H V = V T + \beta_m v_{m+1} e_m^T, \qquad T s_i = \theta_i s_i, \qquad
      \| H V s_i - \theta_i V s_i \| = |\beta_m s_{m,i}| .

    Values are the largest :math:`\theta_i`, errors that residual norm and what float32 rounds away.

    **Guarantees.** Some eigenvalue of H lies within `errors[i]` of `values[i]`, and none of the
    values lies above the largest eigenvalue by more than rounding. That no eigenvalue in between
    was missed is sure only where `num_iterations` reaches P. With fewer, a repeated eigenvalue
    counts once: the method sees no difference between its copies, and they come, if at all, some
    iterations after the first, by rounding. Where the basis cannot grow (H has few distinct
    eigenvalues, and all are found) it goes on with a new random vector, and no value is made up.

    The parameters are raised to float32 and matrix products inside the loss run at full precision;
    all is usable under ``jit`` and ``vmap``. Memory: the basis, `num_iterations` x P x 4 bytes, and
    one Hessian-vector product, about twice that of a gradient: for many examples let the loss be a
    ``jax.lax.map`` over chunks of a function under ``jax.checkpoint``. Dropout must be off and
    batch statistics fixed or those of a fixed batch, so that the loss is one function.

    Args:
      loss: params -> scalar, twice differentiable.
      params: pytree of floating-point arrays, P numbers in all.
      key: for the start vector.
      num_eigenvalues: 1 <= k <= min(num_iterations, P).
      num_iterations: m >= 1, Hessian-vector products; more than P are not made.

    Returns:
      Values and errors, `(k,)` each. All NaN where the loss, its gradient or a product with its
      Hessian is not finite: there is no eigenvalue to find.

    Raises:
      ValueError: a leaf is not floating-point, or a number is out of its range.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from noisegen import diagnostics
      >>> h = jnp.array([5.0, 3.0, -9.0])
      >>> def loss(w):
      ...     return jnp.sum(h * w**2) / 2
      >>> w, key = jnp.ones(3), jax.random.key(0)
      >>> found = diagnostics.hessian_eigenvalues(loss, w, key, num_eigenvalues=2)
      >>> [f"{value:.3f}" for value in found.values]
      ['5.000', '3.000']
    """
    num_eigenvalues, num_iterations = _validate.whole(
        1, num_eigenvalues=num_eigenvalues, num_iterations=num_iterations
    )
    flat_loss, x = flatten(loss, params)
    _check_counts(num_eigenvalues, num_iterations, x.size)
    # Otherwise accelerators round matrix products to 10 bits, and the error bound does not hold.
    with jax.default_matmul_precision("highest"):
        value, gradient = jax.value_and_grad(flat_loss)(x)

        def product(v):
            return jax.jvp(jax.grad(flat_loss), (x,), (v,))[1]

        alphas, betas = _lanczos(product, x.size, min(num_iterations, x.size), key)
        found = _ritz(alphas, betas, num_eigenvalues)
    finite = jnp.isfinite(value) & jnp.isfinite(gradient).all()
    return jax.tree.map(lambda leaf: jnp.where(finite, leaf, jnp.nan), found)


def critical_learning_rate(largest_eigenvalue: ArrayLike, momentum: ArrayLike = 0.0) -> jax.Array:
    r"""Learning rate above which gradient descent with heavy-ball momentum is unstable.

    .. math:: \epsilon_\text{crit} = \frac{2 (1 + m)}{\lambda_\text{max}}, \qquad
      \frac{\epsilon_\text{crit}}{1 - m} = \frac{2 (1 + m)}{(1 - m) \lambda_\text{max}},

    the second of which is the effective learning rate. On a quadratic loss the parameters converge
    below it and diverge above it; it is for ``optax.trace(m)`` without Nesterov's change, and for
    full batches: noise of batches makes a loss unstable earlier.

    Args:
      largest_eigenvalue: :math:`\lambda_\text{max}` of the Hessian.
      momentum: 0 <= m < 1.

    Returns:
      The learning rate; infinite where :math:`\lambda_\text{max} \le 0` (no curvature bounds it),
      NaN where it is NaN, or where a JAX array says that the momentum is out of its range.

    Raises:
      ValueError: a concrete momentum is out of its range.

    Examples:
      >>> from noisegen import diagnostics
      >>> print(diagnostics.critical_learning_rate(4.0, momentum=0.5))
      0.75
    """
    [momentum] = _validate.in_range(0, 1, momentum=momentum)
    [eigenvalue] = _validate.real(largest_eigenvalue=largest_eigenvalue)
    eigenvalue, momentum = (jnp.asarray(v, jnp.float32) for v in (eigenvalue, momentum))
    flat = eigenvalue <= 0
    momentum = jnp.where((momentum >= 0) & (momentum < 1), momentum, jnp.nan)
    rate = 2 * (1 + momentum) / jnp.where(flat, 1.0, eigenvalue)
    return jnp.where(flat & ~jnp.isnan(momentum), jnp.inf, rate)


def flatten(
    loss: Callable[[PyTree], jax.Array], params: PyTree
) -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
    """The loss as a function of one float32 vector, and the parameters as that vector."""
    interpolation.check_floating(params=params)
    x, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params))
    return lambda x: loss(unravel(x)), x


def _check_counts(num_eigenvalues: int, num_iterations: int, num_params: int) -> None:
    most = min(num_iterations, num_params)
    if num_eigenvalues > most:
        raise ValueError(
            f"num_eigenvalues must lie between 1 and the smaller of num_iterations and the number "
            f"of parameters, but it is {num_eigenvalues} with {num_iterations} iterations on "
            f"{num_params} parameters."
        )


def _lanczos(
    product: Callable[[jax.Array], jax.Array], size: int, num_iterations: int, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Diagonal and subdiagonal of T, the last of which leads out of the basis."""

    key = jax.random.clone(key)  # measuring again with the same key is no mistake

    def normal(step):
        return jax.random.normal(jax.random.fold_in(key, step), (size,), jnp.float32)

    def step_fn(step, carry):
        basis, alphas, betas, largest = carry
        v = basis[step]
        w = product(v)
        rest = _orthogonalise(w, basis)
        beta, largest = _norm(rest), jnp.maximum(largest, _norm(w))
        ended = beta <= _ROUNDING * largest
        # Made orthogonal once more at unit length: the rest may be no more than rounding of w.
        following = jnp.where(ended, normal(step + 1), rest / jnp.where(ended, 1.0, beta))
        following = _orthogonalise(following, basis)
        return (
            basis.at[step + 1].set(following / _norm(following), mode="drop"),
            alphas.at[step].set(v @ w),
            betas.at[step].set(jnp.where(ended, 0.0, beta)),
            largest,
        )

    start = normal(0)
    zeros = jnp.zeros(num_iterations, jnp.float32)
    basis = jnp.zeros((num_iterations, size), jnp.float32).at[0].set(start / _norm(start))
    carry = (basis, zeros, zeros, jnp.float32(0))
    _, alphas, betas, _ = jax.lax.fori_loop(0, num_iterations, step_fn, carry)
    return alphas, betas


def _ritz(alphas: jax.Array, betas: jax.Array, num_eigenvalues: int) -> HessianEigenvalues:
    """The largest eigenvalues of T, and how far they may be from those of H."""
    finite = jnp.isfinite(alphas).all() & jnp.isfinite(betas).all()
    t = jnp.diag(alphas) + jnp.diag(betas[:-1], 1) + jnp.diag(betas[:-1], -1)
    theta, s = jnp.linalg.eigh(jnp.where(finite, t, 0.0))
    errors = jnp.abs(betas[-1] * s[-1]) + _ROUNDING * jnp.abs(theta).max()
    largest_first = slice(None, -num_eigenvalues - 1, -1)
    found = HessianEigenvalues(theta[largest_first], errors[largest_first])
    return jax.tree.map(lambda leaf: jnp.where(finite, leaf, jnp.nan), found)


def _orthogonalise(w: jax.Array, basis: jax.Array) -> jax.Array:
    return w - (basis @ w) @ basis


def _norm(w: jax.Array) -> jax.Array:
    """The Euclidean norm, also where squares would leave the range of float32."""
    peak = jnp.abs(w).max()
    return peak * jnp.linalg.norm(w / jnp.where(peak > 0, peak, 1.0))
