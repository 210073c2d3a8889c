"""cuBLASLt's products without split K, through the library that torch has loaded.

Called by its C interface, whose structures and numbers have not changed from CUDA 12.2 to 13.0: nothing is compiled or
linked for it. Only such algorithms are requested as do not cut K into parts and add these up
(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK = 0).
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from pipeline.engine.kernels.library import stream

ALGORITHM_BYTES = 64
"""Size of cublasLtMatmulAlgo_t, which may be stored and used again with the same version of the library."""

WORKSPACE_BYTES = 4 * 2**20

# cublasLt.h, library_types.h
COMPUTE_32F, R_32F, R_16BF, OP_T = 68, 0, 14, 1
DESC_TRANSA = 3
PREF_MAX_WORKSPACE_BYTES, PREF_REDUCTION_SCHEME_MASK, PREF_MIN_ALIGNMENT_A_BYTES = 1, 3, 5
ALIGNMENT_BYTES = 16


class HeuristicResult(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = [
        ("algorithm", c_char * ALGORITHM_BYTES),
        ("workspace_bytes", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    ]


class CannotLoad(Exception):
    """There is no cuBLASLt in this process, or it refuses; the message says which, in one line."""


class Library:
    """Products y = x · wᵀ of bfloat16 tensors on one CUDA device, by algorithms that the library proposes."""

    def __init__(self, device: torch.device) -> None:
        """Raises CannotLoad."""
        self._library = _loaded()
        self._matmul = self._library.cublasLtMatmul
        self._matmul.argtypes = [
            c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p,
            c_void_p, c_void_p, c_void_p, c_void_p, c_char_p, c_void_p, c_size_t, c_void_p,
        ]  # fmt: skip
        self._library.cublasLtGetVersion.restype = c_size_t
        self._handle, self._operation, self._preference = c_void_p(), c_void_p(), c_void_p()
        try:
            self._set_up()
        except RuntimeError as error:
            raise CannotLoad(str(error)) from error
        self._layouts: dict[tuple[int, int, int], c_void_p] = {}
        self._triples: dict[tuple[torch.Size, int, int], tuple[c_void_p, c_void_p, c_void_p]] = {}
        one, zero = c_float(1.0), c_float(0.0)
        self._kept_alive = one, zero
        self._one, self._zero = c_void_p(ctypes.addressof(one)), c_void_p(ctypes.addressof(zero))
        self._workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        self._space = self._workspace.data_ptr()

    def _set_up(self) -> None:
        library = self._library
        _check(library.cublasLtCreate(byref(self._handle)))
        _check(library.cublasLtMatmulDescCreate(byref(self._operation), COMPUTE_32F, R_32F))
        _check(library.cublasLtMatmulDescSetAttribute(self._operation, DESC_TRANSA, byref(c_int(OP_T)), c_size_t(4)))
        _check(library.cublasLtMatmulPreferenceCreate(byref(self._preference)))
        alignments = {PREF_MIN_ALIGNMENT_A_BYTES + i: c_uint32(ALIGNMENT_BYTES) for i in range(4)}
        attributes: dict[int, c_uint32 | c_uint64] = {
            PREF_MAX_WORKSPACE_BYTES: c_uint64(WORKSPACE_BYTES),
            PREF_REDUCTION_SCHEME_MASK: c_uint32(0),
            **alignments,
        }
        for name, value in attributes.items():
            size = c_size_t(ctypes.sizeof(value))
            _check(library.cublasLtMatmulPreferenceSetAttribute(self._preference, name, byref(value), size))

    @property
    def version(self) -> int:
        """The version by cublasLtGetVersion: 120201 is 12.2.1."""
        return int(self._library.cublasLtGetVersion())

    def algorithms(self, rows: int, weight: Tensor, stride: int, count: int) -> list[bytes]:
        """The library's first `count` proposals for `rows` rows of x with `stride` values a row; none: it has none."""
        results, found = (HeuristicResult * count)(), c_int()
        outputs, inputs = weight.shape
        a, b = self._layout(inputs, outputs, inputs), self._layout(inputs, rows, stride)
        c = self._layout(outputs, rows, outputs)
        error = self._library.cublasLtMatmulAlgoGetHeuristic(
            self._handle, self._operation, a, b, c, c, self._preference, count, results, byref(found)
        )
        proposals = results[: found.value] if error == 0 else []
        return [
            bytes(result)[:ALGORITHM_BYTES]
            for result in proposals
            if result.state == 0 and result.workspace_bytes <= WORKSPACE_BYTES
        ]

    def product(self, x: Tensor, weight: Tensor, y: Tensor, algorithm: bytes) -> None:
        """y (M, N) = x (M, K) · weight (N, K)ᵀ. Raises RuntimeError where the library refuses."""
        rows, stride, out = x.shape[0], x.stride(0), y.data_ptr()
        layouts = self._triples.get((weight.shape, stride, rows))
        if layouts is None:
            outputs, inputs = weight.shape
            layouts = (
                self._layout(inputs, outputs, inputs),
                self._layout(inputs, rows, stride),
                self._layout(outputs, rows, outputs),
            )
            self._triples[weight.shape, stride, rows] = layouts
        a, b, c = layouts
        error = self._matmul(
            self._handle, self._operation, self._one, weight.data_ptr(), a, x.data_ptr(), b, self._zero,
            out, c, out, c, algorithm, self._space, WORKSPACE_BYTES, stream(),
        )  # fmt: skip
        if error:
            _check(error)

    def _layout(self, rows: int, columns: int, stride: int) -> c_void_p:
        """A layout, column-major as cuBLAS counts: a row-major (columns, rows) matrix with `stride` values a row."""
        key = rows, columns, stride
        if key not in self._layouts:
            layout = c_void_p()
            create = self._library.cublasLtMatrixLayoutCreate
            _check(create(byref(layout), R_16BF, c_uint64(rows), c_uint64(columns), c_int64(stride)))
            self._layouts[key] = layout
        return self._layouts[key]


def _loaded() -> ctypes.CDLL:
    """The libcublasLt that this process has mapped: torch's own, whichever version that is."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    places = {line.split(maxsplit=5)[5] for line in maps if "libcublasLt.so" in line}
    if not places:
        raise CannotLoad("torch has loaded no cuBLASLt")
    try:
        return ctypes.CDLL(sorted(places)[0])
    except OSError as error:
        raise CannotLoad(str(error)) from error


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"cuBLASLt refused: status {status}")
