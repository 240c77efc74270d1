// Where the programs write: what is no regular file, folders that are there, names that lead back to
// an input, full devices, and what a signal leaves behind.
#define BOOST_TEST_MODULE pare_output_tool
#include <boost/test/unit_test.hpp>

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <optional>
#include <thread>

#include "cli_support.hpp"

namespace fs = std::filesystem;
using cli::Arguments;
using cli::check_failure;
using cli::check_success;
using cli::Json;
using cli::Outcome;
using cli::Texts;
using pare::index_t;
using pare::Matrix;

namespace {

const fs::path tiny = cli::data / "opt-tiny";

Arguments operator+(Arguments a, const Arguments& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// Magnitude pruning of a few linears: the shortest run there is.
const Arguments quick{"compress",
                      tiny.string(),
                      (cli::data / "sampled.calib.txt").string(),
                      "--gmp",
                      "--sparsity",
                      "0.5",
                      "--maxlayer",
                      "1"};

/// A folder with a linear for pare-layer in it, and what pare-layer makes of it.
struct Layer : test::Folder {
  Layer() {
    Matrix<float> W(8, 16), H(16, 16);
    test::Random random(5);
    for (index_t k = 0; k < W.size(); ++k) W.data()[k] = float(random.below(1000)) / 1000 - 0.5f;
    for (index_t k = 0; k < H.size(); ++k) H.data()[k] = k % 17 == 0 ? 2.0f : 0.1f;
    pare::write_safetensors(input, {cli::tensor("W", W), cli::tensor("H", H)});
    check_success(run("expected.safetensors"));
    expected = cli::read_text(path / "expected.safetensors");
  }
  Outcome run(const std::string& output, const fs::path& stdout_file = {}) const {
    return cli::run(PARE_LAYER, {input.string(), output, "--wbits", "4"}, path, stdout_file);
  }
  fs::path input = path / "in.safetensors";
  std::string expected;
};

/// Runs words through a shell, "$@" being a program and its arguments.
Outcome shell(const std::string& script, const fs::path& program, const Arguments& words,
              const fs::path& where) {
  return cli::run("/bin/sh", Arguments{"-c", script, "sh", fs::absolute(program).string()} + words,
                  where);
}

/// A program that runs while the test looks.
struct Started {
  pid_t child;
  int out = -1;

  Started(const Arguments& words, const fs::path& where, bool ignores_hangup = false) {
    int ends[2];
    BOOST_REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    std::vector<std::string> all = words;
    std::vector<char*> argv;
    for (std::string& word : all) argv.push_back(word.data());
    argv.push_back(nullptr);
    child = ::fork();
    BOOST_REQUIRE(child >= 0);
    if (child == 0) {
      const int null = ::open("/dev/null", O_RDWR);
      ::dup2(null, 0);
      ::dup2(ends[1], 1);
      ::dup2(null, 2);
      ::signal(SIGHUP, ignores_hangup ? SIG_IGN : SIG_DFL);
      ::setenv("OMP_WAIT_POLICY", "passive", 0);
      if (::chdir(where.c_str()) == 0) ::execvp(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(ends[1]);
    out = ends[0];
  }
  ~Started() {
    if (out >= 0) ::close(out);
  }
  void close_output() { ::close(std::exchange(out, -1)); }
  /// The exit code, or 128 and the signal.
  int end() {
    if (out >= 0) {
      char buffer[4096];
      while (::read(out, buffer, sizeof buffer) > 0) {
      }
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  /// Waits until `reached`, or the program's end.
  void wait_until(const std::function<bool()>& reached) const {
    siginfo_t ended{};
    while (!reached()) {
      if (::waitid(P_PID, id_t(child), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
          ended.si_pid == child)
        return;
      std::this_thread::sleep_for(std::chrono::microseconds(500));
    }
  }
};

/// Whether a file of this name, or one that begins so, is anywhere below a folder.
bool is_below(const fs::path& folder, const std::string& start) {
  std::error_code error;
  for (auto entry = fs::recursive_directory_iterator(folder, error);
       !error && entry != fs::recursive_directory_iterator(); entry.increment(error))
    if (entry->path().filename().string().find(start) != std::string::npos) return true;
  return false;
}

/// The names in a folder.
std::set<std::string> names(const fs::path& folder) {
  std::set<std::string> all;
  for (const auto& entry : fs::directory_iterator(folder))
    all.insert(entry.path().filename().string());
  return all;
}

ino_t inode(const fs::path& path) {
  struct stat status {};
  BOOST_REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_ino;
}
unsigned mode(const fs::path& path) {
  struct stat status {};
  BOOST_REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_mode & 07777;
}

/// A compression with a layer after the other, and where it puts its results.
Arguments compression(const Texts& texts, const Arguments& more = {}) {
  return Arguments{fs::absolute(PARE_TOOL).string(),
                   "compress",
                   tiny.string(),
                   texts.calibration.string(),
                   "--nsamples",
                   "2",
                   "--wbits",
                   "3"} +
         more;
}

void check_model(const fs::path& folder) {
  BOOST_TEST(fs::exists(folder / "config.json"));
  const pare::SafetensorsFile file(folder / "model.safetensors");
  BOOST_TEST(file.tensors().size() ==
             pare::SafetensorsFile(tiny / "model.safetensors").tensors().size());
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_killed_run_leaves_nothing_that_another_takes_for_its_own) {
  const Texts texts;
  const Arguments box{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc"};
  if (cli::run("/usr/bin/env", box + Arguments{"true"}).code != 0) {
    std::cout << "skipped: two runs with one process id: unshare is not allowed here\n";
    return;
  }
  const Arguments other{"--nsamples", "3", "--sparsity", "0.5"};
  const auto with = [&](const Arguments& start, const std::string& save) {
    return start + Arguments{fs::absolute(PARE_TOOL).string(),
                             "compress",
                             tiny.string(),
                             texts.calibration.string(),
                             "--wbits",
                             "3",
                             "--save",
                             save};
  };
  {
    Started run(with(box, "out") + Arguments{"--nsamples", "2"}, texts.path);
    run.wait_until([&] { return is_below(texts.path, "layer-00000.safetensors"); });
    ::kill(run.child, SIGKILL);
    BOOST_TEST(run.end() == 128 + SIGKILL);
  }
  BOOST_TEST(is_below(texts.path, "layer-00000.safetensors"));
  Started again(with(box, "out") + other, texts.path);
  BOOST_TEST(again.end() == 0);
  Started alone(with({}, "alone") + other, texts.path);
  BOOST_TEST(alone.end() == 0);
  BOOST_CHECK(cli::read_text(texts / "out/model.safetensors") ==
              cli::read_text(texts / "alone/model.safetensors"));
}

BOOST_AUTO_TEST_CASE(a_signal_ends_it_and_nothing_is_left) {
  const Texts texts;
  const auto before = cli::listing(texts.path);
  const Arguments results{"--save", "saved", "--save-packed", "packed", "--report", "report.json"};
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT})
    BOOST_TEST_CONTEXT("signal " << signal) {
      Started run(compression(texts, results), texts.path);
      run.wait_until([&] { return is_below(texts.path, "layer-00000.safetensors"); });
      ::kill(run.child, signal);
      BOOST_TEST(run.end() == 128 + signal);
      BOOST_CHECK(cli::listing(texts.path) == before);
    }
  // While results are written, into a folder that is there. That takes a moment, which may be over
  // before the signal comes.
  int ended = 0;
  for (int attempt = 0; attempt < 20 && ended == 0; ++attempt) {
    for (const char* name : {"saved", "packed", "report.json"}) fs::remove_all(texts / name);
    fs::create_directory(texts / "saved");
    Started run(compression(texts, results), texts.path);
    run.wait_until([&] { return is_below(texts / "saved", ".partial-"); });
    ::kill(run.child, SIGTERM);
    ended = run.end();
    BOOST_TEST((ended == 0 || ended == 128 + SIGTERM));
    BOOST_TEST(!is_below(texts.path, ".partial-"));
    BOOST_TEST(!is_below(texts.path, ".layers-"));
    if (!fs::is_empty(texts / "saved")) check_model(texts / "saved");
  }
  BOOST_TEST(ended == 128 + SIGTERM);
  // Nowhere to save: finished layers are in the folder of temporary files.
  fs::create_directory(texts / "tmp");
  {
    Started run(Arguments{"env", "TMPDIR=" + (texts / "tmp").string()} +
                    compression(texts, {"--eval", "e=" + texts.evaluation.string()}),
                texts.path);
    run.wait_until([&] { return is_below(texts / "tmp", "layer-00001.safetensors"); });
    ::kill(run.child, SIGINT);
    BOOST_TEST(run.end() == 128 + SIGINT);
    BOOST_TEST(fs::is_empty(texts / "tmp"));
  }
}

BOOST_AUTO_TEST_CASE(a_killed_export_leaves_no_half_of_a_folder) {
  const Texts texts;
  const fs::path packed = texts / "packed", out = texts / "out";
  check_success(cli::run(PARE_TOOL,
                         {"compress", tiny.string(), texts.calibration.string(), "--gmp", "--wbits",
                          "4", "--symmetric", "--save-packed", packed.string()},
                         texts.path));
  const auto exported = [&](const fs::path& to) {
    return Arguments{fs::absolute(PARE_TOOL).string(),
                     "export",
                     packed.string(),
                     to.string(),
                     "--format",
                     "gptq"};
  };
  {
    Started whole(exported(texts / "whole"), texts.path);
    BOOST_REQUIRE(whole.end() == 0);
  }
  const auto check_whole = [&] {
    for (const char* name : {"model.safetensors", "config.json", "quantize_config.json"})
      BOOST_CHECK(cli::read_text(out / name) == cli::read_text(texts / "whole" / name));
    BOOST_TEST((names(out) == names(texts / "whole")));
  };
  // An export takes a moment, which may be over before it is killed.
  int killed = 0;
  for (int attempt = 0; attempt < 40 && killed < 3; ++attempt) {
    for (const std::string& name : names(texts.path))  // what killed ones have left
      if (name.find(".partial-") != std::string::npos) fs::remove_all(texts / name);
    fs::remove_all(out);
    Started run(exported(out), texts.path);
    run.wait_until([&] { return is_below(texts.path, ".partial-"); });
    ::kill(run.child, SIGKILL);
    if (run.end() == 128 + SIGKILL) ++killed;
    if (fs::exists(out)) check_whole();
    Started again(exported(fs::exists(out) ? texts / "another" : out), texts.path);
    BOOST_TEST(again.end() == 0);
    check_whole();
    fs::remove_all(texts / "another");
  }
  BOOST_TEST(killed == 3);
}

BOOST_AUTO_TEST_CASE(who_ignores_a_signal_goes_on_and_a_closed_pipe_ends_it) {
  const Texts texts;
  {
    Started run(compression(texts, {"--save", "saved"}), texts.path, true);
    run.wait_until([&] { return is_below(texts.path, "layer-00000.safetensors"); });
    ::kill(run.child, SIGHUP);  // as under nohup
    BOOST_TEST(run.end() == 0);
    check_model(texts / "saved");
  }
  fs::remove_all(texts / "saved");
  {
    Started run(compression(texts, {"--save", "saved"}), texts.path);
    char first = 0;
    BOOST_TEST(::read(run.out, &first, 1) == 1);
    run.close_output();  // as head does
    BOOST_TEST(run.end() == 128 + SIGPIPE);
    BOOST_TEST((names(texts.path) == std::set<std::string>{"calib.txt", "eval.txt"}));
  }
}

BOOST_AUTO_TEST_CASE(a_checkpoint_outlives_a_signal_and_goes_on) {
  const Texts texts;
  const Arguments results{"--save", "saved", "--checkpoint", "run"};
  for (const int signal : {SIGTERM, SIGINT}) {
    Started run(compression(texts, results), texts.path);
    run.wait_until([&] {
      return is_below(texts / "run",
                      signal == SIGTERM ? "states-00000.safetensors" : "states-00001.safetensors");
    });
    ::kill(run.child, signal);
    BOOST_TEST(run.end() == 128 + signal);
    BOOST_TEST(!is_below(texts.path, ".tmp-"));
    BOOST_TEST(fs::exists(texts / "run/layer-00000.safetensors"));
    BOOST_TEST(!fs::exists(texts / "saved"));
  }
  const Arguments all = compression(texts, results);
  const Outcome again = cli::run(PARE_TOOL, {all.begin() + 1, all.end()}, texts.path);
  check_success(again);
  BOOST_TEST(test::contains(again.out, "going on in run"));
  check_model(texts / "saved");
}

BOOST_AUTO_TEST_CASE(what_is_no_regular_file_is_written_into) {
  const Layer layer;
  const auto check_device = [&](const std::string& name) {
    const fs::path path = layer / name;
    check_success(layer.run(name));
    check_success(cli::run(PARE_TOOL, quick + Arguments{"--report", name}, layer.path));
    BOOST_TEST(fs::is_character_file(path));
  };
  if (::mknod((layer / "null").c_str(), S_IFCHR | 0666, makedev(1, 3)) == 0)
    check_device("null");
  else
    std::cout << "skipped: a device of its own: making one is not allowed here\n";
  fs::create_symlink("/dev/null", layer / "link");
  check_device("link");
  BOOST_TEST(fs::is_symlink(layer / "link"));

  BOOST_REQUIRE(::mkfifo((layer / "pipe").c_str(), 0600) == 0);
  const Outcome piped = shell("cat pipe >copy & \"$@\" && wait", PARE_LAYER,
                              {layer.input.string(), "pipe", "--wbits", "4"}, layer.path);
  check_success(piped);
  BOOST_TEST(fs::is_fifo(layer / "pipe"));
  BOOST_CHECK(cli::read_text(layer / "copy") == layer.expected);

  // The tensors alone go there; what is printed goes to the standard error.
  for (const char* name : {"/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}) {
    const Outcome out = layer.run(name);
    BOOST_TEST(out.code == 0);
    BOOST_CHECK(out.out == layer.expected);
    BOOST_TEST(test::contains(out.err, "W"));
    cli::write_text(layer / "out", "");
    BOOST_TEST(layer.run(name, layer / "out").code == 0);
    BOOST_CHECK(cli::read_text(layer / "out") == layer.expected);
  }
  const Outcome other = shell("exec 7>seven && \"$@\"", PARE_LAYER,
                              {layer.input.string(), "/dev/fd/7", "--wbits", "4"}, layer.path);
  check_success(other);
  BOOST_CHECK(cli::read_text(layer / "seven") == layer.expected);

  // After what was printed, not over it.
  const Outcome report =
      cli::run(PARE_TOOL, quick + Arguments{"--report", "/dev/stdout"}, layer.path);
  check_success(report);
  BOOST_TEST(report.out.starts_with("quantization is off"));
  BOOST_TEST(cli::parse_json(report.out.substr(report.out.find("\n{\n"))).contains("totals"));
  const Outcome log =
      shell("exec \"$@\" >log", PARE_TOOL, quick + Arguments{"--report", "log"}, layer.path);
  check_success(log);
  const std::string text = cli::read_text(layer / "log");
  BOOST_TEST(text.starts_with("quantization is off"));
  BOOST_TEST(cli::parse_json(text.substr(text.find("\n{\n"))).contains("totals"));
}

BOOST_AUTO_TEST_CASE(a_file_that_is_replaced_keeps_its_links_and_its_permissions) {
  const Layer layer;
  fs::create_directories(layer / "there/deep");
  cli::write_text(layer / "there/real", "old");
  ::chmod((layer / "there/real").c_str(), 0640);
  fs::create_symlink("there/real", layer / "link");
  check_success(layer.run("link"));
  BOOST_TEST(fs::is_symlink(layer / "link"));
  BOOST_CHECK(cli::read_text(layer / "there/real") == layer.expected);
  BOOST_TEST(mode(layer / "there/real") == 0640u);
  if (::geteuid() == 0) {
    BOOST_REQUIRE(::chown((layer / "there/real").c_str(), 1234, 2345) == 0);
    check_success(layer.run("link"));
    struct stat status {};
    BOOST_REQUIRE(::stat((layer / "there/real").c_str(), &status) == 0);
    BOOST_TEST((status.st_uid == 1234 && status.st_gid == 2345));
  }
  fs::create_symlink("there/new", layer / "dangling");
  check_success(layer.run("dangling"));
  BOOST_TEST(fs::is_symlink(layer / "dangling"));
  BOOST_CHECK(cli::read_text(layer / "there/new") == layer.expected);

  // As the system resolves it: the folder above the one that the link leads to.
  fs::create_symlink("there/deep", layer / "folder");
  check_success(layer.run("folder/../result"));
  BOOST_CHECK(cli::read_text(layer / "there/result") == layer.expected);
  BOOST_TEST(!fs::exists(layer / "result"));
  fs::create_symlink("loop", layer / "loop");
  check_failure(layer.run("loop"), 2, "pare-layer", {"OUT loop: ", "symbolic link"});
  check_failure(layer.run("nowhere/../result"), 2, "pare-layer",
                {"OUT nowhere/../result: there is no folder"});
  BOOST_TEST(
      (names(layer.path) == std::set<std::string>{"in.safetensors", "expected.safetensors", "there",
                                                  "link", "dangling", "folder", "loop"}));
}

BOOST_AUTO_TEST_CASE(no_output_is_an_input) {
  const Layer layer;
  const std::string before = cli::read_text(layer.input);
  fs::create_hard_link(layer.input, layer / "hard");
  fs::create_symlink("in.safetensors", layer / "soft");
  fs::create_directories(layer / "a/b");
  fs::create_symlink("a/b", layer / "folder");
  for (const std::string name :
       {"in.safetensors", "./in.safetensors", "hard", "soft", "folder/../../in.safetensors"})
    check_failure(layer.run(name), 2, "pare-layer",
                  {"OUT " + name + ": this is an input of the run; name another file"});
  BOOST_CHECK(cli::read_text(layer.input) == before);

  const Texts texts;
  const fs::path model = texts / "model";
  fs::create_directories(texts / "deep/folder");
  fs::copy(tiny, model);
  fs::create_hard_link(model / "model.safetensors", texts / "hard");
  fs::create_hard_link(texts.calibration, texts / "text");
  fs::create_symlink("model", texts / "deep/inside");
  fs::create_symlink("../model", texts / "deep/model");
  fs::create_symlink("deep/folder", texts / "folder");
  cli::write_text(texts / "kept.json", "{}");
  const auto listed = cli::listing(texts.path);
  const auto refused = [&](const Arguments& more, const std::string& message) {
    check_failure(cli::run(PARE_TOOL,
                           Arguments{"compress", model.string(), texts.calibration.string(),
                                     "--wbits", "3", "--nsamples", "1"} +
                               more,
                           texts.path),
                  2, "pare", {message});
    BOOST_CHECK(cli::listing(texts.path) == listed);
  };
  for (const std::string name : {"hard", "text", "deep/model/model.safetensors",
                                 "folder/../model/config.json", "model/vocab.json"})
    refused({"--report", name}, "--report " + name + ": this is an input of the run");
  refused({"--report", "model/other.safetensors"}, "this is an input of the run");
  refused({"--save", "deep/model"}, "--save deep/model: this is the model itself");
  refused({"--checkpoint", "folder/../model"}, "this is the model itself");
  refused({"--save", "new", "--checkpoint", "new/run"}, "one lies in the other");
  refused({"--save", "new/saved", "--checkpoint", "new"}, "one lies in the other");
  refused({"--save", "new", "--save-packed", "folder/../../new"}, "name two folders");
  refused({"--report", "kept.json", "--sensitivity", "./kept.json", "--target-avg-bits", "3.5",
           "--scope", "model"},
          "each is written by itself");
  refused({"--sensitivity", "none/s.json", "--target-avg-bits", "3.5", "--scope", "model"},
          "--sensitivity none/s.json: there is no folder none");
  refused({"--save", "new", "--report", "new/config.json"}, "it writes a file of this name itself");
  refused({"--save-packed", "new", "--report", "new/report.json"},
          "it writes a file of this name itself");

  const Outcome appended =
      shell("exec \"$@\" >>text", PARE_TOOL,
            {"evaluate", model.string(), "--eval", "t=" + texts.calibration.string()}, texts.path);
  check_failure(appended, 2, "pare", {"standard output: it goes into an input of the run"});
  BOOST_CHECK(cli::listing(texts.path) == listed);
}

BOOST_AUTO_TEST_CASE(a_folder_that_is_there_is_written_into) {
  const Texts texts;
  const auto saved = [&](const std::string& name, const fs::path& where) {
    BOOST_TEST_CONTEXT(name)
    check_success(cli::run(PARE_TOOL, quick + Arguments{"--save", name}, where));
  };
  fs::create_directory(texts / "empty");
  ::chmod((texts / "empty").c_str(), 02710);
  fs::create_directory(texts / "empty/lost+found");
  const ino_t before = inode(texts / "empty");
  saved("empty", texts.path);
  check_model(texts / "empty");
  BOOST_TEST(inode(texts / "empty") == before);
  BOOST_TEST(mode(texts / "empty") == 02710u);

  fs::create_directory(texts / "here");
  const ino_t here = inode(texts / "here");
  saved(".", texts / "here");
  check_model(texts / "here");
  BOOST_TEST(inode(texts / "here") == here);

  fs::create_directories(texts / "a/b");
  fs::create_symlink("a/new", texts / "dangling");
  saved("dangling", texts.path);
  check_model(texts / "a/new");
  BOOST_TEST(fs::is_symlink(texts / "dangling"));
  fs::create_symlink("a/b", texts / "link");
  saved("link/../above", texts.path);
  check_model(texts / "a/above");
  saved("link", texts.path);
  check_model(texts / "a/b");
  BOOST_TEST(fs::is_symlink(texts / "link"));
  saved(std::string(250, 'x'), texts.path);
  check_model(texts / std::string(250, 'x'));
  saved("quote ' \" \n and \xff", texts.path);
  check_model(texts / "quote ' \" \n and \xff");

  const std::set<std::string> made = names(texts / "here");
  check_success(cli::run(PARE_TOOL,
                         quick + Arguments{"--save", "with", "--report", "with/my report.json"},
                         texts.path));
  std::set<std::string> expected = made;
  expected.insert("my report.json");
  BOOST_TEST((names(texts / "with") == expected));

  // Refused before any work.
  for (const auto& [name, message] :
       std::map<std::string, std::string>{{"empty", "the folder is not empty"},
                                          {"calib.txt", "exists and is not a folder"},
                                          {"/dev/null", "exists and is not a folder"},
                                          {std::string(300, 'x'), "File name too long"},
                                          {"none/new", "there is no folder none"},
                                          {"calib.txt/new", "there is no folder calib.txt"},
                                          {"/proc/new", "cannot be written"}})
    check_failure(cli::run(PARE_TOOL, quick + Arguments{"--save", name}, texts.path), 2, "pare",
                  {"--save " + name + ": ", message});

  fs::create_directories(texts / "killed/.layers-abcdefgh");
  check_failure(cli::run(PARE_TOOL, quick + Arguments{"--save", "killed"}, texts.path), 2, "pare",
                {"--save killed: it holds .layers-abcdefgh, of a run that is at work"});

  check_success(cli::run(PARE_TOOL, quick + Arguments{"--save-packed", "packed"}, texts.path));
  fs::create_directory(texts / "unpacked");
  const ino_t unpacked = inode(texts / "unpacked");
  check_success(cli::run(PARE_TOOL, {"unpack", "packed", "unpacked"}, texts.path));
  check_model(texts / "unpacked");
  BOOST_TEST(inode(texts / "unpacked") == unpacked);
}

BOOST_AUTO_TEST_CASE(a_mount_point_is_written_into_and_a_full_one_holds_nothing_half) {
  const Texts texts;
  fs::create_directory(texts / "volume");
  const auto mount = [&](const char* size, unsigned long flags = 0) {
    return ::mount("tmpfs", (texts / "volume").c_str(), "tmpfs", flags, size) == 0;
  };
  if (!mount("size=64m")) {
    std::cout << "skipped: a mount point: mounting is not allowed here\n";
    return;
  }
  struct Unmount {
    fs::path folder;
    ~Unmount() { ::umount2(folder.c_str(), MNT_DETACH); }
  } const unmount{texts / "volume"};
  const auto run = [&](const Arguments& more) {
    return cli::run(PARE_TOOL, quick + more, texts.path);
  };
  check_success(run({"--save", "volume"}));
  check_model(texts / "volume");
  fs::remove_all(texts / "volume/model.safetensors");
  for (const std::string& name : names(texts / "volume")) fs::remove_all(texts / "volume" / name);
  check_success(run({"--save-packed", "volume"}));
  BOOST_TEST(fs::exists(texts / "volume/packed.safetensors"));
  for (const std::string& name : names(texts / "volume")) fs::remove_all(texts / "volume" / name);

  BOOST_REQUIRE(mount("size=1m", MS_REMOUNT));
  check_failure(run({"--save", "volume"}), 1, "pare", {"No space left on device"});
  BOOST_TEST(fs::is_empty(texts / "volume"));
  check_failure(run({"--save", "volume/new"}), 1, "pare", {"No space left on device"});
  BOOST_TEST(fs::is_empty(texts / "volume"));
  BOOST_REQUIRE(mount("size=64m", MS_REMOUNT | MS_RDONLY));
  for (const char* name : {"volume", "volume/new"})
    check_failure(run({"--save", name}), 2, "pare", {"--save", "Read-only file system"});
  check_failure(run({"--report", "volume/report.json"}), 2, "pare",
                {"--report volume/report.json: ", "Read-only file system"});
  BOOST_REQUIRE(mount("size=64m", MS_REMOUNT));

  // A file that another is mounted on, as into a container.
  cli::write_text(texts / "report.json", "old");
  cli::write_text(texts / "outside.json", "old");
  BOOST_REQUIRE(::mount((texts / "outside.json").c_str(), (texts / "report.json").c_str(), nullptr,
                        MS_BIND, nullptr) == 0);
  const Unmount other{texts / "report.json"};
  check_success(run({"--report", "report.json"}));
  BOOST_TEST(cli::parse_json(cli::read_text(texts / "outside.json")).contains("totals"));
  BOOST_TEST(!is_below(texts.path, ".tmp-"));
}

BOOST_AUTO_TEST_CASE(a_name_that_is_taken_meanwhile_loses_no_work) {
  const Texts texts;
  Started run(compression(texts, {"--save", "saved"}), texts.path);
  run.wait_until([&] { return is_below(texts.path, "layer-00000.safetensors"); });
  fs::create_directory(texts / "saved");
  cli::write_text(texts / "saved/config.json", "mine");
  BOOST_TEST(run.end() == 1);
  BOOST_TEST(cli::read_text(texts / "saved/config.json") == "mine");
  std::optional<fs::path> kept;
  for (const auto& entry : fs::recursive_directory_iterator(texts.path))
    if (entry.path().filename().string().find("partial-") != std::string::npos) kept = entry.path();
  BOOST_REQUIRE(kept.has_value());
  check_model(*kept);
  BOOST_TEST(!is_below(texts.path, "layers-"));
}

BOOST_AUTO_TEST_CASE(what_cannot_be_written_is_a_failure) {
  const Layer layer;
  const std::string full = "No space left on device";
  check_failure(layer.run("/dev/full"), 1, "pare-layer", {"/dev/full: cannot write: " + full});
  check_failure(layer.run("out", "/dev/full"), 1, "pare-layer",
                {"standard output: cannot be written: " + full});
  const auto opt = [&](const Arguments& words, const fs::path& to) {
    return cli::run(PARE_TOOL, words, layer.path, to);
  };
  check_failure(opt(quick, "/dev/full"), 1, "pare",
                {"standard output: cannot be written: " + full});
  check_failure(opt({"--help"}, "/dev/full"), 1, "pare",
                {"standard output: cannot be written: " + full});
  check_failure(opt(quick + Arguments{"--report", "/dev/full"}, {}), 1, "pare",
                {"/dev/full: cannot write: " + full});

  // Without a standard output, no file takes its number.
  const Outcome closed = shell("exec \"$@\" >&-", PARE_LAYER,
                               {layer.input.string(), "closed", "--wbits", "4"}, layer.path);
  check_failure(closed, 1, "pare-layer", {"standard output: cannot be written: Bad file"});
  BOOST_CHECK(cli::read_text(layer / "closed") == layer.expected);
  check_failure(shell("exec \"$@\" >&-", PARE_TOOL, quick, layer.path), 1, "pare",
                {"standard output: cannot be written: Bad file"});
  const Outcome all = shell("exec \"$@\" <&- >&- 2>&-", PARE_LAYER,
                            {layer.input.string(), "all", "--wbits", "4"}, layer.path);
  BOOST_TEST(all.code == 1);
  BOOST_CHECK(cli::read_text(layer / "all") == layer.expected);
  check_failure(shell("exec \"$@\" >&-", PARE_LAYER,
                      {layer.input.string(), "/dev/stdout", "--wbits", "4"}, layer.path),
                2, "pare-layer", {"OUT /dev/stdout: it is not open for writing"});
}

BOOST_AUTO_TEST_CASE(a_folder_of_temporary_files_that_is_none_is_named) {
  const Texts texts;
  const Arguments evaluated{"--eval", "e=" + texts.evaluation.string(), "--seqlen", "16"};
  for (const std::string folder : {"/nonexistent", "/proc", "/dev/null"}) {
    const Outcome outcome =
        shell("TMPDIR=" + folder + " exec \"$@\"", PARE_TOOL, quick + evaluated, texts.path);
    check_failure(outcome, 2, "pare", {"TMPDIR", "--checkpoint DIR"});
  }
  // It is needed for nothing where there are results or a checkpoint to keep layers beside.
  check_success(shell("TMPDIR=/nonexistent exec \"$@\"", PARE_TOOL,
                      quick + evaluated + Arguments{"--save", "saved"}, texts.path));
  check_success(shell("TMPDIR=/nonexistent exec \"$@\"", PARE_TOOL,
                      quick + evaluated + Arguments{"--checkpoint", "run"}, texts.path));
}
