/* The machine's multiply-add peak: independent chains of vectors as wide as the target has, nothing from memory. */
typedef float floats __attribute__((vector_size(__BIGGEST_ALIGNMENT__)));
typedef double doubles __attribute__((vector_size(__BIGGEST_ALIGNMENT__)));

enum { kChains = 12 }; /* two units × a latency of four, and some to spare; accumulators and operands fit 16 registers */

#define DEFINE(name, vector, number)                                                    \
  double name(long iterations, number factor, number term) {                            \
    vector chains[kChains], factors = factor - (vector){0}, terms = term - (vector){0}; \
    for (int i = 0; i < kChains; ++i) chains[i] = terms * (number)i;                    \
    for (long k = 0; k < iterations; ++k) {                                             \
      _Pragma("GCC unroll 12") for (int i = 0; i < kChains; ++i) {                      \
        chains[i] = chains[i] * factors + terms;                                        \
        __asm__ volatile("" : "+" REGISTER(chains[i]));                                 \
      }                                                                                 \
    }                                                                                   \
    double sum = 0;                                                                     \
    for (int i = 0; i < kChains; ++i) sum += chains[i][0];                              \
    return sum;                                                                         \
  }                                                                                     \
  long name##_flops(void) { return 2L * kChains * (long)(sizeof(vector) / sizeof(number)); }

#if defined(__x86_64__)
#define REGISTER(v) "x"(v)
#else
#define REGISTER(v) "w"(v)
#endif

DEFINE(fma_float32, floats, float)
DEFINE(fma_float64, doubles, double)
