// What the tests of the programs share: running one, folders of their own, small files to read.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>

#include "files.hpp"
#include "pare/storage/safetensors.hpp"
#include "support.hpp"

namespace cli {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Arguments = std::vector<std::string>;
using pare::index_t;
using pare::Matrix;

using test::Folder;
using test::read_text;
using test::write_text;

/// What the repository ships: texts and the model opt-tiny.
inline const fs::path data = test::examples_data;

/// The first `bytes` bytes of a shipped text, cut at a space.
inline std::string excerpt(const char* name, std::size_t bytes) {
  const std::string text = read_text(data / name);
  BOOST_REQUIRE(text.size() > bytes);
  return text.substr(0, text.rfind(' ', bytes));
}

/// A folder with short texts: nine windows to calibrate on, a few to evaluate.
struct Texts : Folder {
  Texts() {
    write_text(calibration, excerpt("sampled.calib.txt", 9000));
    write_text(evaluation, excerpt("sampled.eval.txt", 5000));
  }
  fs::path calibration = path / "calib.txt", evaluation = path / "eval.txt";
};

/// Everything below a folder, with the content of files: equal listings mean nothing was touched.
inline std::map<std::string, std::size_t> listing(const fs::path& folder) {
  std::map<std::string, std::size_t> entries;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    entries[fs::relative(entry.path(), folder).string()] =
        entry.is_regular_file() ? std::hash<std::string>{}(read_text(entry.path())) : 0;
  return entries;
}

/// What a program did. A program ended by signal s has code 128 + s.
struct Outcome {
  int code = -1;
  std::string out, err;
  double megabytes = 0;  ///< MiB of memory at its peak, mapped libraries too
};

inline std::string text_of(const Arguments& arguments) {
  std::string text;
  for (const std::string& argument : arguments) text += argument + ' ';
  return text;
}

/// Reads what comes from two descriptors until nobody writes to them any more, and closes them.
inline void read_until_closed(int out, int err, Outcome& outcome) {
  pollfd ends[] = {{out, POLLIN, 0}, {err, POLLIN, 0}};
  std::string* texts[] = {&outcome.out, &outcome.err};
  for (int open = 2; open > 0;) {
    if (::poll(ends, 2, -1) < 0 && errno != EINTR) break;
    for (int i = 0; i < 2; ++i) {
      if (ends[i].fd < 0 || ends[i].revents == 0) continue;
      char buffer[1 << 14];
      const ssize_t n = ::read(ends[i].fd, buffer, sizeof buffer);  // of a terminal: EIO
      if (n > 0) texts[i]->append(buffer, std::size_t(n));
      if (n > 0 || (n < 0 && errno == EINTR)) continue;
      ::close(ends[i].fd);
      ends[i].fd = -1;
      --open;
    }
  }
}

/// The words of a command as execv takes them.
struct CommandWords {
  std::vector<std::string> words;
  std::vector<char*> pointers;

  CommandWords(const fs::path& program, const Arguments& arguments)
      : words{fs::absolute(program).string()} {
    words.insert(words.end(), arguments.begin(), arguments.end());
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
  }
  char* const* data() const { return pointers.data(); }
};

/// While it lives, what this process starts sees an environment variable.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    ::setenv(name, value, 1);
  }
  ~Environment() {
    if (before_)
      ::setenv(name_, before_->c_str(), 1);
    else
      ::unsetenv(name_);
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

/// What OpenMP may be told that changes how many threads it gives.
inline const std::vector<std::pair<const char*, const char*>> openmp_settings{
    {"OMP_THREAD_LIMIT", "1"},
    {"OMP_DYNAMIC", "true"},
    {"OMP_MAX_ACTIVE_LEVELS", "0"},
    {"OMP_NUM_THREADS", "3"}};

/// Runs a program without a shell, in the folder `where`, and waits for its end. Its standard
/// output goes to the file `stdout_file` when that is named.
inline Outcome run(const fs::path& program, const Arguments& arguments,
                   const fs::path& where = fs::temp_directory_path(),
                   const fs::path& stdout_file = {}) {
  const CommandWords argv(program, arguments);
  int out[2], err[2];
  if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0)
    throw std::runtime_error(std::string("pipe: ") + std::strerror(errno));
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error(std::string("fork: ") + std::strerror(errno));
  if (child == 0) {
    const int input = ::open("/dev/null", O_RDONLY);
    const int output = stdout_file.empty() ? out[1] : ::open(stdout_file.c_str(), O_WRONLY);
    if (input < 0 || output < 0 || ::dup2(input, 0) < 0 || ::dup2(output, 1) < 0 ||
        ::dup2(err[1], 2) < 0 || ::chdir(where.c_str()) != 0)
      ::_exit(126);
    // Threads that wait by spinning take minutes where cores are shared with other tests.
    ::setenv("OMP_WAIT_POLICY", "passive", 0);
    ::execv(argv.pointers[0], argv.data());
    ::_exit(127);
  }
  ::close(out[1]);
  ::close(err[1]);

  Outcome outcome;
  read_until_closed(out[0], err[0], outcome);
  int status = 0;
  rusage usage{};
  while (::wait4(child, &status, 0, &usage) < 0 && errno == EINTR) {
  }
  outcome.megabytes = double(usage.ru_maxrss) / 1024;
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

/// Runs a program, on one thread, whose standard output and standard error are terminals of
/// `columns` columns; an empty `name` is no TERM.
inline Outcome run_on_terminal(const fs::path& program, const Arguments& arguments, int columns,
                               const std::string& name) {
  const CommandWords argv(program, arguments);
  int screens[2], terminals[2];  // of standard output and of standard error
  for (int i = 0; i < 2; ++i) {
    screens[i] = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (screens[i] < 0 || ::grantpt(screens[i]) != 0 || ::unlockpt(screens[i]) != 0)
      throw std::runtime_error(std::string("terminal: ") + std::strerror(errno));
    terminals[i] = ::open(::ptsname(screens[i]), O_RDWR | O_NOCTTY | O_CLOEXEC);
    winsize size{};
    size.ws_col = static_cast<unsigned short>(columns);
    size.ws_row = 24;
    if (terminals[i] < 0 || ::ioctl(terminals[i], TIOCSWINSZ, &size) != 0)
      throw std::runtime_error(std::string("terminal: ") + std::strerror(errno));
  }
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error(std::string("fork: ") + std::strerror(errno));
  if (child == 0) {
    const int input = ::open("/dev/null", O_RDONLY);
    if (input < 0 || ::dup2(input, 0) < 0 || ::dup2(terminals[0], 1) < 0 ||
        ::dup2(terminals[1], 2) < 0)
      ::_exit(126);
    ::setenv("OMP_NUM_THREADS", "1", 1);
    if (name.empty())
      ::unsetenv("TERM");
    else
      ::setenv("TERM", name.c_str(), 1);
    ::execv(argv.pointers[0], argv.data());
    ::_exit(127);
  }
  for (const int terminal : terminals) ::close(terminal);
  Outcome outcome;
  read_until_closed(screens[0], screens[1], outcome);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

/// Standard error without the progress lines that a slow machine makes a program print.
inline std::string complaints(const Outcome& outcome) {
  std::string rest;
  for (std::size_t begin = 0; begin < outcome.err.size();) {
    const std::size_t end = std::min(outcome.err.find('\n', begin), outcome.err.size() - 1) + 1;
    const std::string line = outcome.err.substr(begin, end - begin);
    if (!line.ends_with(" s left\n")) rest += line;
    begin = end;
  }
  return rest;
}

/// Checks that the program ended well and complained of nothing.
inline void check_success(const Outcome& outcome) {
  BOOST_TEST(outcome.code == 0);
  BOOST_TEST(complaints(outcome) == "");
}

/// Checks the exit code and that standard error is one line beginning "<program>: " that holds
/// every part.
inline void check_failure(const Outcome& outcome, int code, const std::string& program,
                          const std::vector<std::string>& parts) {
  const std::string err = complaints(outcome);
  BOOST_TEST(outcome.code == code);
  BOOST_TEST_INFO("standard error: " << err);
  BOOST_CHECK(err.starts_with(program + ": "));
  BOOST_TEST_INFO("standard error: " << err);
  BOOST_CHECK(std::count(err.begin(), err.end(), '\n') == 1 && err.ends_with('\n'));
  for (const std::string& part : parts) {
    BOOST_TEST_INFO("expected '" << part << "' in standard error: " << err);
    BOOST_CHECK(test::contains(err, part));
  }
}

/// Every name of --backend, and whether the programs have it.
inline std::map<std::string, bool> backends() {
  const std::string built = std::string(",") + PARE_BUILT_BACKENDS + ",";
  std::map<std::string, bool> all;
  for (const auto& [name, target] : std::map<std::string, std::string>{{"eigen", "eigen"},
                                                                       {"xtensor", "xtensor"},
                                                                       {"thrust-omp", "thrust"},
                                                                       {"thrust-tbb", "thrust_tbb"},
                                                                       {"cuda", "cuda"}})
    all[name] = built.find(",tool_" + target + ",") != std::string::npos;
  return all;
}

/// Checks that a program refused a backend that was not built and said how to build it.
inline void check_not_built(const Outcome& outcome, const std::string& program,
                            const std::string& backend) {
  check_failure(outcome, 2, program,
                {"--backend " + backend + ": this program was built without it; install ",
                 " and configure with -DPARE_"});
}

/// Whether the backend needs a GPU and there is none.
inline bool needs_missing_gpu(const std::string& backend) {
  return backend == "cuda" && !fs::exists("/dev/nvidia0");
}

/// Checks that a program said that there is no GPU.
inline void check_without_gpu(const Outcome& outcome, const std::string& program) {
  check_failure(outcome, 1, program, {"cudaGetDevice: cudaError"});
}

/// The JSON in `text`; a failed check and null when it is none.
inline Json parse_json(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  BOOST_TEST_INFO(text.substr(0, 200));
  BOOST_REQUIRE(!json.is_discarded());
  return json;
}

/// A tensor of floats, stored as `type`.
inline pare::TensorData tensor(const std::string& name, const Matrix<float>& values,
                               pare::DType type = pare::DType::f32) {
  return {name,
          pare::dtype_name(type),
          {values.rows(), values.cols()},
          pare::encode_floats({values.data(), std::size_t(values.size())}, type)};
}

/// The elements of a tensor stored as bytes or as 32-bit integers.
template <class Stored>
std::vector<Stored> elements(const pare::SafetensorsFile& file, std::string_view name) {
  const std::vector<std::byte> bytes = file.read_bytes(name);
  std::vector<Stored> values(bytes.size() / sizeof(Stored));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(Stored));
  return values;
}

/// How many different values a row holds among the columns that `use` accepts.
template <class Use>
std::size_t distinct_values(const Matrix<float>& m, index_t row, const Use& use) {
  std::set<float> values;
  for (index_t j = 0; j < m.cols(); ++j)
    if (use(j)) values.insert(m(row, j));
  return values.size();
}

inline std::size_t distinct_values(const Matrix<float>& m, index_t row) {
  return distinct_values(m, row, [](index_t) { return true; });
}

}  // namespace cli
