// y = x · wᵀ of bfloat16, summed in float32: a product whose rows have the same bits whatever comes beside them.
//
// Every element of y is one chain of mma.sync m16n8k16 over K in ascending order, in one accumulator. All tiles below do
// that and nothing else, so they give equal bits, and which of them is taken may depend on the number of rows. No K is
// split over warps or blocks. Copies run STAGES - 1 steps ahead of the arithmetic (cp.async), fragments one step of 16.
//
// x (M, K) with `x_stride` values a row, w (N, K), y (M, N): row-major; K, N and x_stride multiples of 8, all aligned to
// 16 bytes.
#include "tensor_core.cuh"

#include <utility>

constexpr int STEP = 16;          // of K in one mma
constexpr int GROUP_ROWS = 1024;  // of x: so many rows go through all of w before the next, to find them in the L2 cache

__host__ __device__ constexpr int larger(int a, int b) { return a > b ? a : b; }

// A block computes BM × BN in WM × WN a warp, BK of K at a time.
template <int BM_, int BN_, int BK_, int WM_, int WN_, int STAGES_, int BLOCKS_>
struct Tiling {
    static constexpr int BM = BM_, BN = BN_, BK = BK_, WM = WM_, WN = WN_, STAGES = STAGES_;
    static constexpr int BLOCKS = BLOCKS_;  // on a multiprocessor at the same time, as far as registers go
    static constexpr int WARPS_N = BN / WN, THREADS = BM / WM * WARPS_N * 32;
    static constexpr int CHUNKS = BK / 8;                // 16-byte pieces of a row
    static constexpr int PASS_ROWS = THREADS / CHUNKS;   // rows that the block copies at a time
    static constexpr int STAGE = (BM + BN) * BK;         // values
    static constexpr int OUT_STRIDE = WN + 8;            // of a warp's result in shared memory
    static constexpr int BYTES = larger(STAGES * STAGE, BM * WARPS_N * OUT_STRIDE) * int(sizeof(bf16));
    static_assert(PASS_ROWS % 8 == 0 && BN % PASS_ROWS == 0 && (BM % PASS_ROWS == 0 || PASS_ROWS % BM == 0));
    static_assert(CHUNKS % 8 == 0 && WM % 16 == 0 && WN % 16 == 0 && BM % WM == 0 && BN % WN == 0);
};

// Nothing is read where `bytes` is 0: zeros are written.
__device__ inline void copy_async(bf16* shared, const bf16* global, int bytes) {
    const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
}

__device__ inline void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int PENDING>
__device__ inline void wait_for_all_but() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Calls f with 0, 1, … as constants: fragments are registers, and which of the two sets is meant must be known.
template <int... I, class F>
__device__ inline void for_each(std::integer_sequence<int, I...>, F f) {
    (f(std::integral_constant<int, I>{}), ...);
}

template <class T>
__global__ void __launch_bounds__(T::THREADS, T::BLOCKS)
product_kernel(const bf16* __restrict__ x, int x_stride, const bf16* __restrict__ w, bf16* __restrict__ y, int M, int N, int K) {
    extern __shared__ __align__(128) unsigned char shared[];
    bf16* const stages = reinterpret_cast<bf16*>(shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_m = warp / T::WARPS_N * T::WM, warp_n = warp % T::WARPS_N * T::WN;

    // Blocks go down GROUP_ROWS of x, then on to the next columns.
    constexpr int GROUP = larger(1, GROUP_ROWS / T::BM);
    const int tiles_m = (M + T::BM - 1) / T::BM, tiles_n = (N + T::BN - 1) / T::BN;
    const int first = blockIdx.x / (GROUP * tiles_n) * GROUP, inside = blockIdx.x % (GROUP * tiles_n);
    const int high = min(GROUP, tiles_m - first);
    const int row = (first + inside % high) * T::BM, column = inside / high * T::BN;

    // What this thread copies: piece `chunk` of every PASS_ROWS-th row; zeros where there is none. Pieces of a row lie XORed
    // with its number, so that ldmatrix meets no bank twice.
    constexpr int X_COPIES = larger(1, T::BM / T::PASS_ROWS), W_COPIES = T::BN / T::PASS_ROWS;
    const int copy_row = threadIdx.x / T::CHUNKS, chunk = threadIdx.x % T::CHUNKS;
    const int copy_to = copy_row * T::BK + (chunk ^ (copy_row % 8)) * 8;
    const int x_rows = min(M - row, T::BM) - copy_row, w_rows = min(N - column, T::BN) - copy_row;
    const bf16* x_at = x + size_t(row + copy_row) * x_stride + chunk * 8;
    const bf16* w_at = w + size_t(column + copy_row) * K + chunk * 8;
    int left = K - chunk * 8;  // of K from this thread's piece on

    auto fetch = [&](int stage) {
        bf16* const to = stages + stage * T::STAGE + copy_to;
        const bf16* from = x_at;
        if (T::BM % T::PASS_ROWS == 0 || copy_row < T::BM) {
#pragma unroll
            for (int i = 0; i < X_COPIES; ++i, from += size_t(T::PASS_ROWS) * x_stride)
                copy_async(to + i * T::PASS_ROWS * T::BK, from, left > 0 && i * T::PASS_ROWS < x_rows ? 16 : 0);
        }
        from = w_at;
#pragma unroll
        for (int i = 0; i < W_COPIES; ++i, from += size_t(T::PASS_ROWS) * K)
            copy_async(to + (T::BM + i * T::PASS_ROWS) * T::BK, from, left > 0 && i * T::PASS_ROWS < w_rows ? 16 : 0);
        x_at += T::BK;
        w_at += T::BK;
        left -= T::BK;
    };

    constexpr int MS = T::WM / 16, NS = T::WN / 16, STEPS = T::BK / STEP;
    float acc[MS][2 * NS][4] = {};
    uint32_t a[2][MS][4], b[2][NS][4];
    const int a_row = warp_m + lane % 16, a_chunk = lane / 16;
    const int b_row = warp_n + lane / 16 * 8 + lane % 8, b_chunk = lane / 8 % 2;
    auto load = [&](int stage, auto at) {
        constexpr int step = decltype(at)::value;
        const bf16* const x_tile = stages + stage * T::STAGE;
        const bf16* const w_tile = x_tile + T::BM * T::BK;
#pragma unroll
        for (int i = 0; i < MS; ++i)
            load_matrices(a[step % 2][i], x_tile + (a_row + i * 16) * T::BK + ((step * 2 + a_chunk) ^ (a_row % 8)) * 8);
#pragma unroll
        for (int i = 0; i < NS; ++i)
            load_matrices(b[step % 2][i], w_tile + (b_row + i * 16) * T::BK + ((step * 2 + b_chunk) ^ (b_row % 8)) * 8);
    };

#pragma unroll
    for (int stage = 0; stage < T::STAGES - 1; ++stage) {
        fetch(stage);
        commit();
    }
    wait_for_all_but<T::STAGES - 2>();
    __syncthreads();
    load(0, std::integral_constant<int, 0>{});

    int reading = 0, writing = T::STAGES - 1;
    for (int k = 0; k < K; k += T::BK) {
        for_each(std::make_integer_sequence<int, STEPS>{}, [&](auto at) {
            constexpr int step = decltype(at)::value;
            if (step == STEPS - 1) {
                wait_for_all_but<T::STAGES - 2>();
                __syncthreads();
                reading = reading + 1 == T::STAGES ? 0 : reading + 1;
            }
            load(reading, std::integral_constant<int, (step + 1) % STEPS>{});  // behind the last one nothing that is used
            if (step == 0) {
                fetch(writing);
                commit();
                writing = writing + 1 == T::STAGES ? 0 : writing + 1;
            }
#pragma unroll
            for (int i = 0; i < MS; ++i)
#pragma unroll
                for (int j = 0; j < NS; ++j) {
                    // Back and forth, so that the last fragment of a row of tiles is the first of the next.
                    const int n = i % 2 ? NS - 1 - j : j;
                    multiply(acc[i][2 * n], a[step % 2][i], b[step % 2][n][0], b[step % 2][n][1]);
                    multiply(acc[i][2 * n + 1], a[step % 2][i], b[step % 2][n][2], b[step % 2][n][3]);
                }
        });
    }

    // Each warp lays its result out in shared memory and writes whole pieces.
    wait_for_all_but<0>();
    __syncthreads();
    bf16* const result = stages + warp * T::WM * T::OUT_STRIDE;
#pragma unroll
    for (int i = 0; i < MS; ++i)
#pragma unroll
        for (int n = 0; n < 2 * NS; ++n)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                *reinterpret_cast<uint32_t*>(result + (i * 16 + half * 8 + lane / 4) * T::OUT_STRIDE + n * 8 + lane % 4 * 2) =
                    pair(acc[i][n][2 * half], acc[i][n][2 * half + 1]);
    __syncwarp();
    constexpr int PIECES = T::WN / 8;
#pragma unroll 4
    for (int piece = lane; piece < T::WM * PIECES; piece += 32) {
        const int at = row + warp_m + piece / PIECES, to = column + warp_n + piece % PIECES * 8;
        if (at < M && to < N)
            *reinterpret_cast<Piece*>(y + size_t(at) * N + to) =
                *reinterpret_cast<const Piece*>(result + piece / PIECES * T::OUT_STRIDE + piece % PIECES * 8);
    }
}

using Tiles16x64 = Tiling<16, 64, 128, 16, 16, 5, 2>;
using Tiles32x64 = Tiling<32, 64, 128, 32, 16, 4, 2>;
using Tiles64x64 = Tiling<64, 64, 64, 32, 32, 5, 2>;
using Tiles64x128 = Tiling<64, 128, 64, 32, 64, 4, 2>;
using Tiles128x128 = Tiling<128, 128, 64, 64, 64, 3, 2>;
using Tiles128x256 = Tiling<128, 256, 64, 64, 64, 3, 1>;
using Tiles256x128 = Tiling<256, 128, 64, 64, 64, 3, 1>;

template <class T>
int launch(const void* x, int x_stride, const void* w, void* y, int M, int N, int K, cudaStream_t stream) {
    const cudaError_t error = cudaFuncSetAttribute(product_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, T::BYTES);
    if (error != cudaSuccess) return error;
    const int tiles = (M + T::BM - 1) / T::BM * ((N + T::BN - 1) / T::BN);
    product_kernel<T><<<tiles, T::THREADS, T::BYTES, stream>>>(static_cast<const bf16*>(x), x_stride, static_cast<const bf16*>(w),
                                                               static_cast<bf16*>(y), M, N, K);
    return cudaGetLastError();
}

// An error where a device has too little shared memory for the tiling.
extern "C" int product(const void* x, int x_stride, const void* w, void* y, int M, int N, int K, int tiling, cudaStream_t stream) {
    if (M < 1 || N < 1 || K < 1 || N % 8 || K % 8 || x_stride % 8) return cudaErrorInvalidValue;
    switch (tiling) {
        case 0: return launch<Tiles16x64>(x, x_stride, w, y, M, N, K, stream);
        case 1: return launch<Tiles32x64>(x, x_stride, w, y, M, N, K, stream);
        case 2: return launch<Tiles64x64>(x, x_stride, w, y, M, N, K, stream);
        case 3: return launch<Tiles64x128>(x, x_stride, w, y, M, N, K, stream);
        case 4: return launch<Tiles128x128>(x, x_stride, w, y, M, N, K, stream);
        case 5: return launch<Tiles128x256>(x, x_stride, w, y, M, N, K, stream);
        case 6: return launch<Tiles256x128>(x, x_stride, w, y, M, N, K, stream);
        default: return cudaErrorInvalidValue;
    }
}
