/* The machine's multiply-add peak: independent chains of vectors as wide as the target has, nothing from memory.
   Every loop over the chains is unrolled, or they would live in memory after all; the empty asm keeps each step. */
typedef float floats __attribute__((vector_size(__BIGGEST_ALIGNMENT__)));
typedef double doubles __attribute__((vector_size(__BIGGEST_ALIGNMENT__)));

/* Two units with a latency of four need eight; twelve and two operands still fit sixteen registers. */
enum { kChains = 12 };
#define EACH_CHAIN _Pragma("GCC unroll 12") for (int i = 0; i < kChains; ++i)

#if defined(__x86_64__)
#define REGISTER "+x"
#else
#define REGISTER "+w"
#endif

#define DEFINE(name, vector, number)                                                    \
  double name(long iterations, number factor, number term) {                            \
    vector chains[kChains], factors = factor - (vector){0}, terms = term - (vector){0}; \
    EACH_CHAIN chains[i] = terms * (number)i;                                           \
    for (long k = 0; k < iterations; ++k) {                                             \
      EACH_CHAIN {                                                                      \
        chains[i] = chains[i] * factors + terms;                                        \
        __asm__ volatile("" : REGISTER(chains[i]));                                     \
      }                                                                                 \
    }                                                                                   \
    double sum = 0;                                                                     \
    EACH_CHAIN sum += chains[i][0];                                                     \
    return sum;                                                                         \
  }                                                                                     \
  long name##_flops(void) { return 2L * kChains * (long)(sizeof(vector) / sizeof(number)); }

DEFINE(fma_float32, floats, float)
DEFINE(fma_float64, doubles, double)
