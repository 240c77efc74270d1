// PARE_TARGET: a namespace for each way to compile the headers.
//
// Objects of one program may be compiled for different processors. An inline function of the
// headers would have one name in all of them, the linker would keep any one of its bodies, and a
// processor might meet instructions that it does not have. So everything but the error types lies
// in an inline namespace whose name is made of the macros that say for what a file is compiled.
// Macros that change no code of ours (NDEBUG, PARE_EXTERN_KERNELS) are no part of it.
#pragma once

// PARE_BIT(macro) is 1 where the macro is defined as 1, otherwise 0: PARE_IS_1 holds a comma, which
// moves the 1 to the second place.
#define PARE_IS_1 0,
#define PARE_SECOND(first, second, ...) second
#define PARE_SECOND_OF(...) PARE_SECOND(__VA_ARGS__)
#define PARE_BIT_OF(value) PARE_SECOND_OF(PARE_IS_##value 1, 0, )
#define PARE_BIT(macro) PARE_BIT_OF(macro)

// PARE_DIGIT(four macros) is a hexadecimal digit.
#define PARE_DIGIT_0000 0
#define PARE_DIGIT_0001 1
#define PARE_DIGIT_0010 2
#define PARE_DIGIT_0011 3
#define PARE_DIGIT_0100 4
#define PARE_DIGIT_0101 5
#define PARE_DIGIT_0110 6
#define PARE_DIGIT_0111 7
#define PARE_DIGIT_1000 8
#define PARE_DIGIT_1001 9
#define PARE_DIGIT_1010 a
#define PARE_DIGIT_1011 b
#define PARE_DIGIT_1100 c
#define PARE_DIGIT_1101 d
#define PARE_DIGIT_1110 e
#define PARE_DIGIT_1111 f
#define PARE_DIGIT_OF_BITS(a, b, c, d) PARE_DIGIT_##a##b##c##d
#define PARE_DIGIT_OF(a, b, c, d) PARE_DIGIT_OF_BITS(a, b, c, d)
#define PARE_DIGIT(a, b, c, d) PARE_DIGIT_OF(PARE_BIT(a), PARE_BIT(b), PARE_BIT(c), PARE_BIT(d))

#define PARE_JOIN_OF(a, b, c, d, e) a##b##c##d##e
#define PARE_JOIN(a, b, c, d, e) PARE_JOIN_OF(a, b, c, d, e)

// How every processor's code is compiled: OpenMP, and what -ffast-math leaves where it is allowed.
#if defined(_OPENMP)
#define PARE_HAS_OPENMP 1
#endif
#define PARE_TARGET_ANY                                                                \
  PARE_JOIN(PARE_BIT(PARE_HAS_OPENMP),                                                 \
            PARE_DIGIT(__ASSOCIATIVE_MATH__, __RECIPROCAL_MATH__, __NO_SIGNED_ZEROS__, \
                       __NO_TRAPPING_MATH__),                                          \
            , , )

#if defined(__x86_64__) || defined(__i386__)

#define PARE_TARGET_SSE_AVX                                                          \
  PARE_JOIN(PARE_DIGIT(__SSE2_MATH__, __SSE3__, __SSSE3__, __SSE4_1__),              \
            PARE_DIGIT(__SSE4_2__, __SSE4A__, __AVX__, __AVX2__),                    \
            PARE_DIGIT(__FMA__, __FMA4__, __F16C__, __XOP__),                        \
            PARE_DIGIT(__AVXVNNI__, __AVXIFMA__, __AVXVNNIINT8__, __AVXVNNIINT16__), \
            PARE_DIGIT(__AVXNECONVERT__, __GFNI__, __VAES__, __VPCLMULQDQ__))
#define PARE_TARGET_AVX512                                                                     \
  PARE_JOIN(PARE_DIGIT(__AVX512F__, __AVX512CD__, __AVX512BW__, __AVX512DQ__),                 \
            PARE_DIGIT(__AVX512VL__, __AVX512IFMA__, __AVX512VBMI__, __AVX512VBMI2__),         \
            PARE_DIGIT(__AVX512VNNI__, __AVX512BITALG__, __AVX512VPOPCNTDQ__, __AVX512BF16__), \
            PARE_DIGIT(__AVX512FP16__, __AVX512VP2INTERSECT__, __AVX512ER__, __AVX512PF__),    \
            PARE_DIGIT(__AVX5124FMAPS__, __AVX5124VNNIW__, __AVX10_1__, __AVX10_2__))
#define PARE_TARGET_REST                                                              \
  PARE_JOIN(PARE_DIGIT(__BMI__, __BMI2__, __LZCNT__, __POPCNT__),                     \
            PARE_DIGIT(__MOVBE__, __ADX__, __TBM__, __APX_F__),                       \
            PARE_DIGIT(__AES__, __PCLMUL__, __SHA__, __SHA512__),                     \
            PARE_DIGIT(__CRC32__, __SM3__, __SM4__, __CMPCCXADD__),                   \
            PARE_DIGIT(__GCC_HAVE_SYNC_COMPARE_AND_SWAP_16, __LAHF_SAHF__, __3dNOW__, \
                       __EVEX512__))
#define PARE_TARGET \
  PARE_JOIN(x86_, PARE_TARGET_ANY, PARE_TARGET_SSE_AVX, PARE_TARGET_AVX512, PARE_TARGET_REST)

#elif defined(__aarch64__) || defined(__arm__)

#define PARE_TARGET_VECTORS                                                                      \
  PARE_JOIN(PARE_DIGIT(__ARM_NEON, __ARM_FEATURE_FMA, __ARM_FEATURE_FP16_SCALAR_ARITHMETIC,      \
                       __ARM_FEATURE_FP16_VECTOR_ARITHMETIC),                                    \
            PARE_DIGIT(__ARM_FEATURE_FP16_FML, __ARM_FEATURE_DOTPROD, __ARM_FEATURE_MATMUL_INT8, \
                       __ARM_FEATURE_BF16_VECTOR_ARITHMETIC),                                    \
            PARE_DIGIT(__ARM_FEATURE_SVE, __ARM_FEATURE_SVE2, __ARM_FEATURE_SVE_BF16,            \
                       __ARM_FEATURE_SVE_MATMUL_FP32),                                           \
            PARE_DIGIT(__ARM_FEATURE_SVE_MATMUL_INT8, __ARM_FEATURE_SVE_MATMUL_FP64,             \
                       __ARM_FEATURE_SVE2_BITPERM, __ARM_FEATURE_SME),                           \
            PARE_DIGIT(__ARM_FEATURE_COMPLEX, __ARM_FEATURE_JCVT, __ARM_FEATURE_FRINT,           \
                       __ARM_FEATURE_BF16_SCALAR_ARITHMETIC))
#define PARE_TARGET_REST                                                              \
  PARE_JOIN(PARE_DIGIT(__ARM_FEATURE_ATOMICS, __ARM_FEATURE_CRC32, __ARM_FEATURE_AES, \
                       __ARM_FEATURE_SHA2),                                           \
            PARE_DIGIT(__ARM_FEATURE_SHA3, __ARM_FEATURE_SHA512, __ARM_FEATURE_SM3,   \
                       __ARM_FEATURE_SM4),                                            \
            PARE_DIGIT(__ARM_FEATURE_RCPC, __ARM_FEATURE_QRDMX, __ARM_FEATURE_LS64,   \
                       __ARM_FEATURE_MOPS),                                           \
            , )
#if defined(__ARM_FEATURE_SVE_BITS)
#define PARE_TARGET_WIDTH __ARM_FEATURE_SVE_BITS
#else
#define PARE_TARGET_WIDTH 0
#endif
#define PARE_TARGET_ARM(arch, width) PARE_JOIN(arm, arch, _, width, _)
#define PARE_TARGET                                                                               \
  PARE_JOIN(PARE_TARGET_ARM(__ARM_ARCH, PARE_TARGET_WIDTH), PARE_TARGET_ANY, PARE_TARGET_VECTORS, \
            PARE_TARGET_REST, )

#else  // compiled alike for all of a kind

#define PARE_TARGET PARE_JOIN(any_, PARE_TARGET_ANY, , , )

#endif
