// Compiles the kernels of the addon by NVRTC, one file per module and target, as modules.cc reads them; needs no GPU.
//   pack_kernels FOLDER_OF_SOURCES OUTPUT TARGET...    targets: sm_80, sm_90a, compute_80, ...
// Prints a line per module, target and kernel: what the assembler says of it, for the table of budgets.
#include <cstdio>
#include <fstream>
#include <set>

#include "cuda/compiler.h"
#include "cuda/launch.h"

using namespace td::cuda;

namespace {

std::map<std::string, std::vector<std::string>> kernels_by_source() {
  std::map<std::string, std::set<std::string>> found;
  for (const KernelEntry* entry = KernelEntry::first(); entry; entry = entry->next) found[entry->module->source].insert(entry->expression);
  std::map<std::string, std::vector<std::string>> result;
  for (const auto& [source, expressions] : found) result[source] = {expressions.begin(), expressions.end()};
  return result;
}

void pack(const CompileRequest& request, const std::string& output) {
  std::string report;
  const Image image = compile(request, &report);
  std::ofstream(output + "/" + request.source + "." + request.target, std::ios::binary) << serialize(image);
  std::printf("module %s %s %zu bytes\n", request.source.c_str(), request.target.c_str(), image.code.size());
  for (const auto& [expression, name] : image.names) std::printf("name %s\t%s\n", name.c_str(), expression.c_str());
  std::printf("%s\nend\n", report.c_str());
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 4) {
    std::fprintf(stderr, "usage: pack_kernels SOURCES OUTPUT TARGET...\n");
    return 2;
  }
  try {
    for (int i = 3; i < count; ++i) {
      for (const auto& [source, expressions] : kernels_by_source()) pack({arguments[1], source, expressions, arguments[i]}, arguments[2]);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
