#include "backends/cpu/microgemm.h"

#include <libxsmm.h>

#include <limits>
#include <type_traits>

namespace deepseek::backends::cpu {

namespace {

Status refused(std::string reason) { return Status(ErrorCode::kUnsupported, std::move(reason)); }

}  // namespace

bool has_wide_vectors() { return libxsmm_get_target_archid() >= LIBXSMM_X86_AVX512; }

Status MicroGemm::takes(std::initializer_list<int64_t> sizes) {
  if (libxsmm_get_target_archid() < LIBXSMM_X86_SSE3) return refused("libxsmm compiles no products for this CPU");
  for (const int64_t size : sizes)
    if (size < 1 || size > std::numeric_limits<libxsmm_blasint>::max())
      return refused(fmt::format("libxsmm compiles no products with a size of {}", size));
  return {};
}

Result<MicroGemm> MicroGemm::make(const MicroGemmShape& s) {
  const auto size = [](int64_t v) { return static_cast<libxsmm_blasint>(v); };
  const libxsmm_blasint lda = size(s.lda), ldb = size(s.ldb), ldc = size(s.ldc);
  const float alpha = 1, beta = s.accumulate ? 1.0f : 0.0f;
  const int flags = s.transpose_b ? LIBXSMM_GEMM_FLAG_TRANS_B : LIBXSMM_GEMM_FLAG_NONE;
  MicroGemm gemm;
  static_assert(std::is_same_v<Function, libxsmm_smmfunction_reducebatch_addr>);
  gemm.function_ = libxsmm_smmdispatch_reducebatch_addr(size(s.m), size(s.n), size(s.k), &lda, &ldb, &ldc, &alpha,
                                                        &beta, &flags, nullptr);
  if (gemm.function_ == nullptr)
    return internal_error("libxsmm compiles no {} x {} x {} product for this CPU", s.m, s.n, s.k);
  return gemm;
}

}  // namespace deepseek::backends::cpu
