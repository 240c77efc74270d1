// The instructions that a program may have been built with, and how a processor says that it has
// them.
#pragma once

#include "pare/core/target.hpp"

/// X(macro of the compiler, name, leaf, subleaf, register and bit of CPUID, bits of XCR0 that say
/// that the system keeps the registers). Source: Intel's and AMD's manuals of the instruction set.
#define TOOL_PROCESSOR_FEATURES(X)                                    \
  X(__SSE3__, "sse3", 1, 0, ecx, 0, 0)                                \
  X(__PCLMUL__, "pclmul", 1, 0, ecx, 1, 0)                            \
  X(__SSSE3__, "ssse3", 1, 0, ecx, 9, 0)                              \
  X(__FMA__, "fma", 1, 0, ecx, 12, 0x06)                              \
  X(__GCC_HAVE_SYNC_COMPARE_AND_SWAP_16, "cx16", 1, 0, ecx, 13, 0)    \
  X(__SSE4_1__, "sse4.1", 1, 0, ecx, 19, 0)                           \
  X(__SSE4_2__, "sse4.2", 1, 0, ecx, 20, 0)                           \
  X(__MOVBE__, "movbe", 1, 0, ecx, 22, 0)                             \
  X(__POPCNT__, "popcnt", 1, 0, ecx, 23, 0)                           \
  X(__AES__, "aes", 1, 0, ecx, 25, 0)                                 \
  X(__AVX__, "avx", 1, 0, ecx, 28, 0x06)                              \
  X(__F16C__, "f16c", 1, 0, ecx, 29, 0x06)                            \
  X(__BMI__, "bmi", 7, 0, ebx, 3, 0)                                  \
  X(__AVX2__, "avx2", 7, 0, ebx, 5, 0x06)                             \
  X(__BMI2__, "bmi2", 7, 0, ebx, 8, 0)                                \
  X(__AVX512F__, "avx512f", 7, 0, ebx, 16, 0xe6)                      \
  X(__AVX512DQ__, "avx512dq", 7, 0, ebx, 17, 0xe6)                    \
  X(__ADX__, "adx", 7, 0, ebx, 19, 0)                                 \
  X(__AVX512IFMA__, "avx512ifma", 7, 0, ebx, 21, 0xe6)                \
  X(__AVX512PF__, "avx512pf", 7, 0, ebx, 26, 0xe6)                    \
  X(__AVX512ER__, "avx512er", 7, 0, ebx, 27, 0xe6)                    \
  X(__AVX512CD__, "avx512cd", 7, 0, ebx, 28, 0xe6)                    \
  X(__SHA__, "sha", 7, 0, ebx, 29, 0)                                 \
  X(__AVX512BW__, "avx512bw", 7, 0, ebx, 30, 0xe6)                    \
  X(__AVX512VL__, "avx512vl", 7, 0, ebx, 31, 0xe6)                    \
  X(__AVX512VBMI__, "avx512vbmi", 7, 0, ecx, 1, 0xe6)                 \
  X(__AVX512VBMI2__, "avx512vbmi2", 7, 0, ecx, 6, 0xe6)               \
  X(__GFNI__, "gfni", 7, 0, ecx, 8, 0)                                \
  X(__VAES__, "vaes", 7, 0, ecx, 9, 0x06)                             \
  X(__VPCLMULQDQ__, "vpclmulqdq", 7, 0, ecx, 10, 0x06)                \
  X(__AVX512VNNI__, "avx512vnni", 7, 0, ecx, 11, 0xe6)                \
  X(__AVX512BITALG__, "avx512bitalg", 7, 0, ecx, 12, 0xe6)            \
  X(__AVX512VPOPCNTDQ__, "avx512vpopcntdq", 7, 0, ecx, 14, 0xe6)      \
  X(__AVX5124VNNIW__, "avx5124vnniw", 7, 0, edx, 2, 0xe6)             \
  X(__AVX5124FMAPS__, "avx5124fmaps", 7, 0, edx, 3, 0xe6)             \
  X(__AVX512VP2INTERSECT__, "avx512vp2intersect", 7, 0, edx, 8, 0xe6) \
  X(__AVX512FP16__, "avx512fp16", 7, 0, edx, 23, 0xe6)                \
  X(__SHA512__, "sha512", 7, 1, eax, 0, 0x06)                         \
  X(__SM3__, "sm3", 7, 1, eax, 1, 0x06)                               \
  X(__SM4__, "sm4", 7, 1, eax, 2, 0x06)                               \
  X(__AVXVNNI__, "avxvnni", 7, 1, eax, 4, 0x06)                       \
  X(__AVX512BF16__, "avx512bf16", 7, 1, eax, 5, 0xe6)                 \
  X(__CMPCCXADD__, "cmpccxadd", 7, 1, eax, 7, 0)                      \
  X(__AVXIFMA__, "avxifma", 7, 1, eax, 23, 0x06)                      \
  X(__AVXVNNIINT8__, "avxvnniint8", 7, 1, edx, 4, 0x06)               \
  X(__AVXNECONVERT__, "avxneconvert", 7, 1, edx, 5, 0x06)             \
  X(__AVXVNNIINT16__, "avxvnniint16", 7, 1, edx, 10, 0x06)            \
  X(__AVX10_1__, "avx10.1", 7, 1, edx, 19, 0xe6)                      \
  X(__APX_F__, "apxf", 7, 1, edx, 21, 0x80000)                        \
  X(__LAHF_SAHF__, "lahf", 0x80000001, 0, ecx, 0, 0)                  \
  X(__LZCNT__, "lzcnt", 0x80000001, 0, ecx, 5, 0)                     \
  X(__SSE4A__, "sse4a", 0x80000001, 0, ecx, 6, 0)                     \
  X(__XOP__, "xop", 0x80000001, 0, ecx, 11, 0x06)                     \
  X(__FMA4__, "fma4", 0x80000001, 0, ecx, 16, 0x06)                   \
  X(__TBM__, "tbm", 0x80000001, 0, ecx, 21, 0)                        \
  X(__3dNOW__, "3dnow", 0x80000001, 0, edx, 31, 0)

/// 1 for every feature above that the program was built with, in order.
extern "C" const unsigned char tool_built_with[];
