"""Largest eigenvalues of a loss's Hessian, and the critical learning rate.

>>> import jax, jax.numpy as jnp
>>> from noisegen import diagnostics
>>> def loss(params):
...     return 4 * params["w"] ** 2 / 2 + params["b"] ** 2 / 2
>>> params = {"w": jnp.float32(3), "b": jnp.float32(1)}
>>> spectrum = diagnostics.hessian_eigenvalues(loss, params, jax.random.key(0))
>>> largest = spectrum.values[0]
>>> print(f"{largest:.3f} {diagnostics.critical_learning_rate(largest):.3f}")
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
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.diagnostics._flatten import flatten_loss

PyTree = Any

# Relative accuracy of a Hessian-vector product in float32. Smaller parts of |H| count as zero.
_ROUNDING = 2.0**-17


class HessianEigenvalues(NamedTuple):
    """Eigenvalues, the largest first, and bounds of their errors."""

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
    """Computes the algebraically largest eigenvalues of the Hessian of a loss, by Lanczos.

    From a normal start vector, m Hessian-vector products give an orthonormal basis V with

    H V = V T + beta_m v_{m+1} e_m^T
    T s_i = theta_i s_i
    |H V s_i - theta_i V s_i| = |beta_m s_{m,i}|

    Values are the largest theta_i. Errors are this residual norm plus rounding of float32.

    **Guarantees.** Some eigenvalue of H lies within `errors[i]` of `values[i]`. No value exceeds
    the largest eigenvalue by more than rounding. Eigenvalues in between may be missed unless
    `num_iterations` reaches P. With fewer iterations a repeated eigenvalue counts once, because the
    method cannot tell its copies apart; rounding may add them some iterations later. If H has few
    distinct eigenvalues and all are found, the basis continues with a new random vector, and no
    value is made up.

    Parameters are converted to float32, and matrix products inside the loss run at full precision.
    The function works under ``jit`` and ``vmap``. It needs memory for the basis, `num_iterations`
    x P x 4 bytes, and for one Hessian-vector product, about twice that of a gradient. For many
    examples let the loss be a ``jax.lax.map`` over chunks of a function under ``jax.checkpoint``.
    Switch dropout off and keep batch statistics fixed, or those of a fixed batch, so that the loss
    is a function of the parameters alone.

    Args:
      loss: Function params -> scalar, twice differentiable.
      params: Pytree of floating-point arrays, P numbers in total.
      key: Random key of the start vector.
      num_eigenvalues: Number of eigenvalues k, from 1 to min(num_iterations, P).
      num_iterations: Number of Hessian-vector products m >= 1, of which at most P are computed.

    Returns:
      Values and errors, `(k,)` each. All are NaN if the loss, its gradient or a Hessian-vector
      product is not finite.

    Raises:
      ValueError: If a leaf is not floating-point, or a number is out of its range.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from noisegen import diagnostics
      >>> h = jnp.array([5.0, 3.0, -9.0])
      >>> def loss(w):
      ...     return jnp.sum(h * w**2) / 2
      >>> w, key = jnp.ones(3), jax.random.key(0)
      >>> spectrum = diagnostics.hessian_eigenvalues(loss, w, key, num_eigenvalues=2)
      >>> [f"{value:.3f}" for value in spectrum.values]
      ['5.000', '3.000']
    """
    num_eigenvalues, num_iterations = _validate.whole(
        1, num_eigenvalues=num_eigenvalues, num_iterations=num_iterations
    )
    flat_loss, x = flatten_loss(loss, params)
    most = min(num_iterations, x.size)
    if num_eigenvalues > most:
        raise ValueError(
            f"num_eigenvalues must lie between 1 and the smaller of num_iterations and the number "
            f"of parameters, but it is {num_eigenvalues} with {num_iterations} iterations on "
            f"{x.size} parameters."
        )
    # Accelerators round matrix products to 10 bits by default, too few for the error bound.
    with jax.default_matmul_precision("highest"):
        value, gradient = jax.value_and_grad(flat_loss)(x)

        # Forward over reverse: the derivative of the gradient along v, without a matrix.
        def product(v: jax.Array) -> jax.Array:
            return jax.jvp(jax.grad(flat_loss), (x,), (v,))[1]

        alphas, betas = _lanczos(product, x.size, most, key)
        spectrum = _ritz(alphas, betas, num_eigenvalues)
    finite = jnp.isfinite(value) & jnp.isfinite(gradient).all()
    return jax.tree.map(lambda leaf: jnp.where(finite, leaf, jnp.nan), spectrum)


def critical_learning_rate(largest_eigenvalue: ArrayLike, momentum: ArrayLike = 0.0) -> jax.Array:
    """Returns the learning rate above which gradient descent with heavy-ball momentum is unstable.

    lr_crit = 2 (1 + m) / lambda_max

    The corresponding effective learning rate is lr_crit / (1 - m). On a quadratic loss, parameters
    converge below it and diverge above it. It holds for ``optax.trace(m)`` without Nesterov
    momentum, and for the full batch. Sampling noise makes training unstable earlier.

    Args:
      largest_eigenvalue: Largest eigenvalue lambda_max of the Hessian.
      momentum: Momentum m in [0, 1).

    Returns:
      The learning rate. Infinite if lambda_max <= 0, since no curvature bounds it. NaN if
      lambda_max is NaN or a traced momentum is out of its range.

    Raises:
      ValueError: If a concrete momentum is out of its range.

    Examples:
      >>> from noisegen import diagnostics
      >>> print(diagnostics.critical_learning_rate(4.0, momentum=0.5))
      0.75
    """
    [momentum] = _validate.in_range(0, 1, momentum=momentum)
    [eigenvalue] = _validate.real(largest_eigenvalue=largest_eigenvalue)
    eigenvalue = jnp.asarray(eigenvalue, jnp.float32)
    momentum = jnp.asarray(momentum, jnp.float32)
    momentum = jnp.where((momentum >= 0) & (momentum < 1), momentum, jnp.nan)
    flat = eigenvalue <= 0
    rate = 2 * (1 + momentum) / jnp.where(flat, 1.0, eigenvalue)
    return jnp.where(flat & ~jnp.isnan(momentum), jnp.inf, rate)


def _lanczos(
    product: Callable[[jax.Array], jax.Array], size: int, num_iterations: int, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Runs Lanczos iterations from a random start vector.

    Args:
      product: Function v -> H v.
      size: Number of parameters P.
      num_iterations: Number of iterations m.
      key: Random key of the start vector.

    Returns:
      The diagonal of T, and its subdiagonal, `(m,)` each. The last entry of the subdiagonal leads
      out of the basis.
    """
    key = jax.random.clone(key)  # Measuring again with the same key is allowed.

    def normal(step: int | jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(key, step), (size,), jnp.float32)

    def step_fn(step: jax.Array, carry: tuple) -> tuple:
        # `basis` (m, P) has zeros below row `step`, and `largest` estimates |H| from below.
        basis, alphas, betas, largest = carry
        v = basis[step]
        w = product(v)
        # Against the whole basis, although in exact arithmetic its last two vectors would do:
        # rounding would bring found eigenvalues back as false copies.
        rest = _orthogonalize(w, basis)
        beta = _norm(rest)
        largest = jnp.maximum(largest, _norm(w))
        # The basis spans an invariant subspace if nothing but rounding is left of w.
        ended = beta <= _ROUNDING * largest
        # Then the next vector is random, and its coupling to the basis 0.
        following = jnp.where(ended, normal(step + 1), rest / jnp.where(ended, 1.0, beta))
        # Orthogonalize again at unit length, since the rest may be mostly rounding of w.
        following = _orthogonalize(following, basis)
        return (
            # The vector after the last iteration has no row, and is dropped.
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
    """Returns the largest eigenvalues of T, and bounds of their distance to those of H."""
    # The matrix to decompose is finite in any case. NaN is put in place of the result below.
    finite = jnp.isfinite(alphas).all() & jnp.isfinite(betas).all()
    t = jnp.diag(alphas) + jnp.diag(betas[:-1], 1) + jnp.diag(betas[:-1], -1)
    theta, s = jnp.linalg.eigh(jnp.where(finite, t, 0.0))
    errors = jnp.abs(betas[-1] * s[-1]) + _ROUNDING * jnp.abs(theta).max()
    largest_first = slice(None, -num_eigenvalues - 1, -1)  # eigh sorts in ascending order.
    spectrum = HessianEigenvalues(theta[largest_first], errors[largest_first])
    return jax.tree.map(lambda leaf: jnp.where(finite, leaf, jnp.nan), spectrum)


def _orthogonalize(w: jax.Array, basis: jax.Array) -> jax.Array:
    """Subtracts the projection on a basis `(m, P)`. Its rows of zeros have no effect."""
    return w - (basis @ w) @ basis


def _norm(w: jax.Array) -> jax.Array:
    """Returns the Euclidean norm, even if squares would leave the range of float32."""
    peak = jnp.abs(w).max()
    return peak * jnp.linalg.norm(w / jnp.where(peak > 0, peak, 1.0))
