#include "cuda/compiler.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "core/errors.h"
#include "cuda/libraries.h"

namespace td::cuda {
namespace {

using Program = struct NvrtcProgram*;

/// The functions of NVRTC that are called; the same in versions 12 and 13.
struct Nvrtc {
  int (*version)(int*, int*);
  int (*create)(Program*, const char*, const char*, int, const char* const*, const char* const*);
  int (*add_name)(Program, const char*);
  int (*compile)(Program, int, const char* const*);
  int (*log_size)(Program, size_t*);
  int (*log)(Program, char*);
  int (*code_size)(Program, size_t*);
  int (*code)(Program, char*);
  int (*ptx_size)(Program, size_t*);
  int (*ptx)(Program, char*);
  int (*lowered)(Program, const char*, const char**);
  int (*destroy)(Program*);
  int major = 0, minor = 0;
};

template <class F>
void bind(F& function, const Library& library, const char* name) {
  function = reinterpret_cast<F>(library.symbol(name));
  require(function != nullptr, library.path, " lacks ", name);
}

Nvrtc open_nvrtc() {
  const Library& library = nvrtc_library();
  require(static_cast<bool>(library), "kernels cannot be compiled here: ", library.problem);
  Nvrtc n;
  bind(n.version, library, "nvrtcVersion");
  bind(n.create, library, "nvrtcCreateProgram");
  bind(n.add_name, library, "nvrtcAddNameExpression");
  bind(n.compile, library, "nvrtcCompileProgram");
  bind(n.log_size, library, "nvrtcGetProgramLogSize");
  bind(n.log, library, "nvrtcGetProgramLog");
  bind(n.code_size, library, "nvrtcGetCUBINSize");
  bind(n.code, library, "nvrtcGetCUBIN");
  bind(n.ptx_size, library, "nvrtcGetPTXSize");
  bind(n.ptx, library, "nvrtcGetPTX");
  bind(n.lowered, library, "nvrtcGetLoweredName");
  bind(n.destroy, library, "nvrtcDestroyProgram");
  n.version(&n.major, &n.minor);
  return n;
}
const Nvrtc& nvrtc() {
  static const Nvrtc opened = open_nvrtc();
  return opened;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return file ? text.str() : "";
}

/// Names in quotes after #include, in the order in which they are met, each once, with their texts.
void collect(const std::string& folder, const std::string& name, std::map<std::string, std::string>* sources) {
  if (sources->count(name)) return;
  const std::string text = read_file(folder + "/" + name);
  require(!text.empty(), "the source ", folder, "/", name, " is not there");
  (*sources)[name] = text;
  const std::string mark = "#include \"";
  for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) {
    const size_t begin = at + mark.size();
    const std::string included = text.substr(begin, text.find('"', begin) - begin);
    // The emulator's headers are for g++ alone.
    if (included.find("emulator/") == std::string::npos) collect(folder, included, sources);
  }
}

/// FNV-1a over two lanes: names of files of a cache, not a defence.
std::string hash(const std::vector<std::string>& parts) {
  uint64_t a = 14695981039346656037ull, b = 88172645463325252ull;
  for (const std::string& part : parts) {
    for (const unsigned char byte : part + '\0') {
      a = (a ^ byte) * 1099511628211ull;
      b = (b + byte) * 6364136223846793005ull + 1442695040888963407ull;
    }
  }
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(a), static_cast<unsigned long long>(b));
  return text;
}

std::string cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (cache && *cache) return std::string(cache) + "/tfjs-diffusers/cuda";
  return home ? std::string(home) + "/.cache/tfjs-diffusers/cuda" : "";
}

void make_folders(const std::string& path) {
  for (size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) mkdir(path.substr(0, at).c_str(), 0777);
  mkdir(path.c_str(), 0777);
}

/// Writes a file that others see as a whole or not at all; a full disk costs the cache, not the work.
void write_file(const std::string& path, const std::string& bytes) {
  const std::string temporary = path + "." + std::to_string(getpid());
  std::ofstream file(temporary, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file || std::rename(temporary.c_str(), path.c_str()) != 0) unlink(temporary.c_str());
}

int capability_of(const std::string& target) { return std::atoi(target.c_str() + target.find('_') + 1); }

template <class Size, class Get>
std::string fetch_text(Program program, const Size& size, const Get& get) {
  size_t length = 0;
  size(program, &length);
  std::string text(length, '\0');
  if (length) get(program, text.data());
  return text;
}

struct Compilation {
  Program program = nullptr;
  ~Compilation() {
    if (program) nvrtc().destroy(&program);
  }
};

Image run_compiler(const CompileRequest& request, const std::map<std::string, std::string>& sources, std::string* report) {
  const Nvrtc& n = nvrtc();
  std::vector<const char*> texts, names;
  for (const auto& [name, text] : sources) {
    names.push_back(name.c_str());
    texts.push_back(text.c_str());
  }
  const std::string main = "#include \"" + request.source + "\"\n";
  Compilation c;
  require(n.create(&c.program, main.c_str(), (request.source + ".cu").c_str(), static_cast<int>(names.size()), texts.data(), names.data()) == 0,
          "NVRTC refuses ", request.source);
  for (const std::string& expression : request.expressions) n.add_name(c.program, expression.c_str());
  const std::string target = "--gpu-architecture=" + request.target;
  std::vector<const char*> options{target.c_str(), "--std=c++17", "--device-as-default-execution-space"};
  if (report) options.push_back("--ptxas-options=-v");
  const int status = n.compile(c.program, static_cast<int>(options.size()), options.data());
  const std::string log = fetch_text(c.program, n.log_size, n.log);
  require(status == 0, "NVRTC ", n.major, ".", n.minor, " does not compile ", request.source, " for ", request.target, ":\n", log);
  if (report) *report = log;
  const bool machine_code = request.target.rfind("sm_", 0) == 0;
  Image image{machine_code ? fetch_text(c.program, n.code_size, n.code) : fetch_text(c.program, n.ptx_size, n.ptx), {}};
  for (const std::string& expression : request.expressions) {
    const char* name = nullptr;
    require(n.lowered(c.program, expression.c_str(), &name) == 0, "NVRTC does not know ", expression);
    image.names[expression] = name;
  }
  return image;
}

}  // namespace

bool exists_for(const std::string& expression, int capability) {
  const auto names = [&](const char* part) { return expression.find(part) != std::string::npos; };
  return (capability >= 80 || !names("bfloat16")) && (capability == 90 || !names("hopper"));
}

std::string serialize(const Image& image) {
  std::string bytes = "tfjs-diffusers-kernels " + std::to_string(image.names.size()) + " " + std::to_string(image.code.size()) + "\n";
  for (const auto& [expression, name] : image.names) bytes += expression + "\t" + name + "\n";
  return bytes + image.code;
}

Image deserialize(const std::string& bytes) {
  std::istringstream text(bytes);
  std::string mark, line;
  size_t count = 0, length = 0;
  if (!(text >> mark >> count >> length) || mark != "tfjs-diffusers-kernels" || !std::getline(text, line)) return {};
  Image image;
  for (size_t i = 0; i < count && std::getline(text, line); ++i) {
    const size_t tab = line.find('\t');
    if (tab == std::string::npos) return {};
    image.names[line.substr(0, tab)] = line.substr(tab + 1);
  }
  const auto at = text.tellg();
  if (at < 0 || bytes.size() != static_cast<size_t>(at) + length) return {};
  image.code = bytes.substr(static_cast<size_t>(at));
  return image;
}

Image compile(const CompileRequest& given, std::string* report) {
  CompileRequest request = given;
  request.expressions.clear();
  for (const std::string& expression : given.expressions) {
    // wgmma belongs to sm_90a alone, not to the PTX of compute_90
    const bool wgmma = given.target == "sm_90a" || expression.find("hopper") == std::string::npos;
    if (wgmma && exists_for(expression, capability_of(given.target))) request.expressions.push_back(expression);
  }
  std::map<std::string, std::string> sources;
  collect(request.folder, request.source, &sources);
  const Nvrtc& n = nvrtc();
  std::vector<std::string> parts{request.source, request.target, std::to_string(n.major) + "." + std::to_string(n.minor)};
  for (const auto& [name, text] : sources) parts.insert(parts.end(), {name, text});
  parts.insert(parts.end(), request.expressions.begin(), request.expressions.end());
  const std::string folder = cache_folder(), path = folder + "/" + hash(parts);
  if (!report && !folder.empty()) {
    const Image kept = deserialize(read_file(path));
    if (!kept.code.empty()) return kept;
  }
  const Image image = run_compiler(request, sources, report);
  if (!folder.empty()) {
    make_folders(folder);
    write_file(path, serialize(image));
  }
  return image;
}

}  // namespace td::cuda
