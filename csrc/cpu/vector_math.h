// exp, log1p, tanh, erf, erfc and pow of SIMD vectors, for the activations: within 2 units in the last place (tanh and
// erf 3; erfc 3, and h² more in its tail, where h² is rounded), with infinities, NaN and denormal results as in the C
// library.
//
// Coefficients are Chebyshev fits made for this file at 60 digits (mpmath.chebyfit of the named function over the named
// interval); their error is below a tenth of the rounding error.
#pragma once

#include <cmath>

#include "../model/activation.h"
#include "simd.h"

namespace bk::cpu::BK_SIMD_LEVEL {

template <class V, int kTerms> BK_HD V polynomial(V x, const double (&coefficients)[kTerms]) {
  V sum(coefficients[kTerms - 1]);
#pragma GCC unroll 32
  for (int i = kTerms - 2; i >= 0; --i) sum = sum * x + V(coefficients[i]);
  return sum;
}

template <class A> struct FloatingPoint;
template <> struct FloatingPoint<float> {
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr double kRounder = 12582912.0;         // 1.5·2^23: adding it rounds to an integer
  static constexpr double kExpMin = -104, kExpMax = 89;  // beyond: 0 and ∞
  static constexpr double kLn2High = 0.693359375, kLn2Low = -2.12194440054690583e-4;  // High · n is exact
};
template <> struct FloatingPoint<double> {
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr double kRounder = 6755399441055744.0;
  static constexpr double kExpMin = -746, kExpMax = 710;
  static constexpr double kLn2High = 0.693147180369123816490, kLn2Low = 1.90821492927058770002e-10;
};

// 2^n for an integer n held as `n + kRounder`, n within the normal exponents.
template <class A> BK_HD Vec<A> power_of_two(typename Vec<A>::Bits n) {
  return Vec<A>::of_bits((n + FloatingPoint<A>::kBias) << FloatingPoint<A>::kMantissa);
}

// exp(h) = 2^n (1 + tail): n an integer, tail = e^r − 1 to full relative accuracy.
template <class A> struct SplitExp {
  typename Vec<A>::Bits n;
  Vec<A> tail;
};

template <class A> BK_HD SplitExp<A> split_exp(Vec<A> h) {
  using V = Vec<A>;
  using F = FloatingPoint<A>;
  const V rounder(F::kRounder);
  const V shifted = h * V(1.44269504088896340736) + rounder;
  const V n = shifted - rounder;
  const V r = (h - n * V(F::kLn2High)) - n * V(F::kLn2Low);
  V bend;  // (e^r − 1 − r) / r² on |r| ≤ ln2 / 2
  if constexpr (sizeof(A) == sizeof(float)) {
    constexpr double kBend[] = {0.500000001346581,  0.16666666681623232,   0.041666464925285904,
                                0.0083333109254809, 0.0013933649996309251, 0.00019890990824673654};
    bend = polynomial(r, kBend);
  } else {
    constexpr double kBend[] = {0.5,
                                0.1666666666666667,
                                0.04166666666666667,
                                0.008333333333326136,
                                0.0013888888888883748,
                                0.00019841269874820627,
                                2.4801587325547743e-05,
                                2.7557255400206422e-06,
                                2.75572736431103e-07,
                                2.5105217004720745e-08,
                                2.0914686968086876e-09};
    bend = polynomial(r, kBend);
  }
  return {shifted.bits() - rounder.bits(), r + r * r * bend};
}

template <class A> BK_HD Vec<A> exp(Vec<A> h) {
  using V = Vec<A>;
  using F = FloatingPoint<A>;
  const V low = select(h < V(F::kExpMin), V(F::kExpMin), h);  // a NaN stays one
  const SplitExp<A> split = split_exp(select(low > V(F::kExpMax), V(F::kExpMax), low));
  // Two factors: 2^n itself leaves the normal range where the result is denormal or infinite.
  const auto half = split.n >> 1;
  return (V(1) + split.tail) * power_of_two<A>(half) * power_of_two<A>(split.n - half);
}

// log1p(h) = log(u) + (what 1 + h lost in rounding) / u, u = 1 + h; log by atanh of s = f / (2 + f), f in [√½, √2] − 1.
template <class A> BK_HD Vec<A> log1p(Vec<A> h) {
  using V = Vec<A>;
  using F = FloatingPoint<A>;
  constexpr Integer<A> kOne = Integer<A>(1);
  constexpr Integer<A> kMantissaMask = (kOne << F::kMantissa) - 1;
  constexpr Integer<A> kRootHalf = sizeof(A) == 4 ? Integer<A>(0x3f3504f3) : Integer<A>(0x3fe6a09e667f3bcdLL);
  constexpr Integer<A> kOneBits = Integer<A>(F::kBias) << F::kMantissa;
  const V u = V(1) + h;
  const V lost = select(h > V(1), V(1) - (u - h), h - (u - V(1))) / u;
  // A NaN's bits run over the sign, which is undefined for signed integers.
  const auto wrapped = reinterpret_cast<typename V::Unsigned>(u.raw) + (kOneBits - kRootHalf);
  const auto shifted = reinterpret_cast<typename V::Bits>(wrapped);
  const auto exponent = (shifted >> F::kMantissa) - F::kBias;
  const V f = V::of_bits((shifted & kMantissaMask) + kRootHalf) - V(1);
  const V n = V::of(__builtin_convertvector(exponent, typename V::Raw));
  const V s = f / (V(2) + f);
  const V z = s * s;
  V tail;  // (log((1 + s) / (1 − s)) / s − 2) / s² over z = s²
  if constexpr (sizeof(A) == sizeof(float)) {
    constexpr double kTail[] = {0.6666666655404201, 0.4000012221181065, 0.28550778633191964, 0.23331614471843498};
    tail = polynomial(z, kTail);
  } else {
    constexpr double kTail[] = {0.666666666666667,  0.3999999999989889,  0.28571428626253836, 0.22222211089379496,
                                0.1818289243253687, 0.15331611722055008, 0.14617807153417325};
    tail = polynomial(z, kTail);
  }
  const V half_square = V(0.5) * f * f;
  const V log_f = f - (half_square - (s * (half_square + z * tail) + (n * V(F::kLn2Low) + lost)));
  const V result = n * V(F::kLn2High) + log_f;
  const V infinity(__builtin_inf());
  return select((h == infinity) | (h == V(0)), h,
                select(h > V(-1), result, select(h == V(-1), -infinity, V(__builtin_nan("")))));
}

// −t / (2 + t), t = exp(−2|h|) − 1.
template <class A> BK_HD Vec<A> tanh(Vec<A> h) {
  using V = Vec<A>;
  const V twice = V(-2) * absolute(h);
  const SplitExp<A> split = split_exp(select(twice < V(-50), V(-50), twice));
  const V scale = power_of_two<A>(split.n);
  const V t = scale * split.tail + (scale - V(1));
  return copy_sign(-t / (V(2) + t), h);
}

// erf(h) where |h| < ½, as h · series(h²), and erfc(|h|) beyond, as exp(−h²) · series(t) / (|h| + K) with
// t = (|h| − K) / (|h| + K): each accurate to its last places, so that erfc is so in its tail.
template <class A> struct SplitErf {
  Mask<A> small;
  Vec<A> inner, outer;
};

template <class A> BK_HD SplitErf<A> split_erf(Vec<A> h) {
  using V = Vec<A>;
  constexpr double kCentre = sizeof(A) == sizeof(float) ? 3.0 : 4.5;
  constexpr double kZero = sizeof(A) == sizeof(float) ? 10.5 : 28.0;  // erfc is 0 from here on
  const V size = absolute(h);
  const V clipped = select(size > V(kZero), V(kZero), size);
  const V scale = V(1) / (clipped + V(kCentre));
  const V t = (clipped - V(kCentre)) * scale;
  V inner, outer;  // erf(h) / h over z = h² ≤ ¼; (h + K) · exp(h²) · erfc(h) over t, h from ½ to where erfc is 0
  if constexpr (sizeof(A) == sizeof(float)) {
    constexpr double kInner[] = {1.1283791656017914, -0.37612609007469805, 0.11282831428465862, -0.026757732735015517,
                                 0.004719082567218814};
    constexpr double kOuter[] = {1.074006907523424,      -0.8833944739510267,   0.5902282887475319,
                                 -0.31046642669356395,   0.11952960199591198,   -0.026836146284279987,
                                 -0.0012303281434498203, 0.0030676956967371056, -0.000475835795328269,
                                 -0.0003094773203049665};
    inner = polynomial(h * h, kInner);
    outer = polynomial(t, kOuter);
  } else {
    constexpr double kInner[] = {1.1283791670955126,     -0.37612638903183476,    0.11283791670925353,
                                 -0.026866170632887928,  0.00522397737302147,     -0.0008548297753674966,
                                 0.00012053335124353741, -1.4845849259707869e-05, 1.4725865480556744e-06};
    constexpr double kOuter[] = {
        1.1023632384645727,      -1.0049269806415522,    0.8339512420846503,      -0.6281259956147539,
        0.42728027748864644,     -0.26052397656788007,   0.14074148036002973,     -0.06614072529887517,
        0.026198967184883872,    -0.008209020036855285,  0.0017034201065280435,   -2.6846389647497363e-05,
        -0.00014249165367700027, 5.2985128257231436e-05, -2.7358448888965754e-06, -4.846472795193394e-06,
        1.5995576394427931e-06,  1.8604803862871336e-07, -2.257583295506473e-07,  1.3663869671840556e-08,
        1.9833926669938244e-08,  -2.0038435444766684e-09};
    inner = polynomial(h * h, kInner);
    outer = polynomial(t, kOuter);
  }
  return {size < V(0.5), h * inner, exp(-clipped * clipped) * (outer * scale)};
}

template <class A> BK_HD Vec<A> erf(Vec<A> h) {
  const SplitErf<A> split = split_erf(h);
  return select(split.small, split.inner, copy_sign(Vec<A>(1) - split.outer, h));
}

template <class A> BK_HD Vec<A> erfc(Vec<A> h) {
  using V = Vec<A>;
  const SplitErf<A> split = split_erf(h);
  return select(split.small, V(1) - split.inner, select(h < V(0), V(2) - split.outer, split.outer));
}

// Whole powers up to 32 by multiplication, others lane by lane through the C library.
template <class A> BK_HD Vec<A> pow(Vec<A> h, double q) {
  const double size = q < 0 ? -q : q;
  if (size <= 32 && size == static_cast<int>(size)) {
    Vec<A> result(1);
    Vec<A> square = h;
    for (int rest = static_cast<int>(size); rest > 0; rest >>= 1) {
      if (rest & 1) result *= square;
      square *= square;
    }
    return q < 0 ? Vec<A>(1) / result : result;
  }
  return per_lane(h, [q](A lane) { return bk::pow(lane, q); });
}

}  // namespace bk::cpu::BK_SIMD_LEVEL
