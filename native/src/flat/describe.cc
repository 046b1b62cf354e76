#include <cstdio>

#include "pycomm/flat.h"

namespace pycomm {
namespace {

template <typename Enum, std::size_t kCount>
std::string label(Enum value, const char* const (&names)[kCount]) {
  const auto index = static_cast<std::size_t>(value);
  return index < kCount ? names[index] : "unknown(" + std::to_string(index) + ")";
}

constexpr const char* kKinds[] = {
    "allreduce", "allgather",  "reduce_scatter",  "alltoall",  "broadcast", "reduce",   "gather", "scatter",
    "barrier",   "allgatherv", "reduce_scatterv", "alltoallv", "gatherv",   "scatterv", "send",   "recv"};
constexpr const char* kOps[] = {"sum", "prod", "min", "max", "avg", "premul_sum", "band", "bor", "bxor", "land", "lor"};
constexpr const char* kDTypes[] = {"float64",     "float32", "float16", "bfloat16", "float8_e4m3fn",
                                   "float8_e5m2", "int8",    "int16",   "int32",    "int64",
                                   "uint8",       "uint16",  "uint32",  "uint64",   "bool"};

bool reduces(Kind kind) noexcept {
  return kind == Kind::allreduce || kind == Kind::reduce || kind == Kind::reduce_scatter ||
         kind == Kind::reduce_scatterv;
}

std::string hex(std::uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

}  // namespace

std::string describe(const Descriptor& desc) {
  std::string text = label(desc.kind, kKinds);
  const auto add = [&text](const char* before, const std::string& what) { text.append(before).append(what); };
  if (desc.kind != Kind::barrier) add(" ", label(desc.dtype, kDTypes));
  if (reduces(desc.kind)) add(" ", label(desc.op, kOps));
  if (desc.kind != Kind::barrier) add(" count=", std::to_string(desc.count));
  if (desc.root >= 0) add(" root=", std::to_string(desc.root));
  if (desc.flags != 0) add(" flags=", std::to_string(desc.flags));
  if (desc.counts != 0) add(" counts#", hex(desc.counts));
  if (desc.plan != 0) add(" plan#", hex(desc.plan));
  return text;
}

}  // namespace pycomm
