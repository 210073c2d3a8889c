// What all kernels share: 16-byte pieces of bfloat16 and their rounding.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

using bf16 = __nv_bfloat16;

// Eight bfloat16, moved as one 16-byte access.
struct alignas(16) Piece {
    __nv_bfloat162 pair[4];
};

constexpr int PIECE = 8;

__device__ inline float rounded(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

__device__ inline void unpack(const Piece& piece, float (&x)[PIECE]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 two = __bfloat1622float2(piece.pair[i]);
        x[2 * i] = two.x;
        x[2 * i + 1] = two.y;
    }
}

// Rounds to nearest, ties to even, as torch does.
__device__ inline Piece pack(const float (&x)[PIECE]) {
    Piece piece;
#pragma unroll
    for (int i = 0; i < 4; ++i) piece.pair[i] = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
    return piece;
}
