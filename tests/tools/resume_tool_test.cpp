// pare compress --checkpoint: killed at any point, the same command ends with the same bytes.
#define BOOST_TEST_MODULE pare_resume_tool
#include <boost/test/unit_test.hpp>

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <optional>
#include <thread>

#include "cli_support.hpp"
#include "pare/core/fingerprint.hpp"

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

/// JSON without what differs from run to run.
Json without_times(Json json) {
  if (json.is_object())
    for (const char* key : {"seconds", "solver_seconds"}) json.erase(key);
  if (json.is_structured())
    for (auto& child : json) child = without_times(child);
  return json;
}

/// A folder in which one compression of opt-tiny is run, with its results in it.
struct Place : test::Folder {
  const Texts& texts;
  Arguments words;

  Place(const Texts& given, const Arguments& options) : texts(given) {
    words = {"compress",
             tiny.string(),
             texts.calibration.string(),
             "--nsamples",
             "4",
             "--eval",
             "short=" + texts.evaluation.string(),
             "--save",
             "saved",
             "--save-packed",
             "packed",
             "--report",
             "report.json"};
    words.insert(words.end(), options.begin(), options.end());
  }
  Arguments command(const Arguments& more = {"--checkpoint", "run"}) const {
    Arguments all = words;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  Outcome run(const Arguments& more = {"--checkpoint", "run"}) const {
    return cli::run(PARE_TOOL, command(more), path);
  }
  /// With files of at most `blocks` times 512 bytes.
  Outcome run_with_small_files(long blocks) const {
    Arguments all{"-c", "ulimit -f " + std::to_string(blocks) + " && exec \"$@\"", "sh",
                  fs::absolute(PARE_TOOL).string()};
    const Arguments own = command();
    all.insert(all.end(), own.begin(), own.end());
    return cli::run("/bin/sh", all, path);
  }

  /// Starts the command, waits until `reached` is true, and kills it. Returns whether it was killed
  /// before its end.
  bool kill_when(const std::function<bool()>& reached) const {
    const Arguments own = command();
    std::vector<std::string> all{fs::absolute(PARE_TOOL).string()};
    all.insert(all.end(), own.begin(), own.end());
    std::vector<char*> argv;
    for (std::string& word : all) argv.push_back(word.data());
    argv.push_back(nullptr);
    const pid_t child = ::fork();
    BOOST_REQUIRE(child >= 0);
    if (child == 0) {
      const int null = ::open("/dev/null", O_RDWR);
      for (int end : {0, 1, 2}) ::dup2(null, end);
      ::setenv("OMP_WAIT_POLICY", "passive", 0);
      if (::chdir(path.c_str()) == 0) ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    int status = 0;
    for (;;) {
      if (::waitpid(child, &status, WNOHANG) == child) {
        BOOST_TEST_INFO(cli::text_of(all));
        BOOST_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        return false;
      }
      if (reached()) break;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    ::kill(child, SIGKILL);
    ::waitpid(child, &status, 0);
    return WIFSIGNALED(status);
  }

  /// The same, when a file appears.
  bool kill_at(const std::string& name) const {
    return kill_when([&] { return fs::exists(path / name); });
  }

  std::string in_run(const std::string& name) const { return (path / "run" / name).string(); }
};

/// The results of an uninterrupted run without --checkpoint, and a check of others against them.
struct Expected {
  Place place;
  double seconds;  ///< that the run took

  Expected(const Texts& texts, const Arguments& options) : place(texts, options) {
    const auto start = std::chrono::steady_clock::now();
    const Outcome outcome = place.run({});
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    BOOST_TEST_INFO(outcome.err);
    BOOST_REQUIRE(outcome.code == 0);
  }
  void check(const Place& other) const {
    for (const char* folder : {"saved", "packed"}) {
      const auto mine = cli::listing(place / folder), theirs = cli::listing(other / folder);
      BOOST_TEST(mine.size() == theirs.size());
      for (const auto& [name, hash] : mine) {
        BOOST_TEST_INFO(folder << "/" << name);
        BOOST_CHECK(name == "report.json" || (theirs.contains(name) && theirs.at(name) == hash));
      }
    }
    for (const char* name : {"report.json", "packed/report.json"}) {
      BOOST_TEST_INFO(name);
      BOOST_CHECK(without_times(cli::parse_json(cli::read_text(place / name))) ==
                  without_times(cli::parse_json(cli::read_text(other / name))));
    }
    for (const auto& entry : fs::directory_iterator(other.path)) {
      const std::string name = entry.path().filename().string();
      BOOST_TEST_INFO("left behind: " << name);
      BOOST_CHECK(name == "saved" || name == "packed" || name == "report.json" || name == "run");
    }
    for (const auto& entry : fs::directory_iterator(other / "run")) {
      BOOST_TEST_INFO("left behind: " << entry.path());
      BOOST_CHECK(entry.path().string().find(".tmp-") == std::string::npos);
    }
  }
};

const Arguments uniform{"--sparsity", "0.5", "--wbits", "4", "--group-size", "64"};
// The preset but for its search for masks, which takes long.
const Arguments best{"--preset", "best", "--mask-search",     "greedy", "--sparsity",   "0.5",
                     "--wbits",  "3",    "--target-avg-bits", "3.5",    "--kl-windows", "1"};
/// The same for one linear of each layer: a third of the time.
const Arguments best_of_fc1 = [] {
  Arguments options = best;
  options.insert(options.end(), {"--prune-only", "fc1"});
  return options;
}();

/// Kills a run at every one of the points that its files mark, one kill after the other.
void check_points(const Texts& texts, const Arguments& options, bool planned) {
  const Expected expected(texts, options);
  const Place place(texts, options);
  const auto appears = [&](const std::string& name) {
    return [&place, name] { return fs::exists(place / name); };
  };
  const auto starting = [&](const std::string& start) {
    return [&place, start] {
      std::error_code error;
      for (auto entry = fs::recursive_directory_iterator(place.path, error);
           !error && entry != fs::recursive_directory_iterator(); entry.increment(error))
        if (entry->path().filename().string().starts_with(start)) return true;
      return false;
    };
  };
  std::vector<std::function<bool()>> points{appears("run"), appears("run/run.json")};
  if (planned) points.push_back(appears("run/sensitivities.json"));
  points.push_back(starting("layer-00000.safetensors.tmp-"));
  points.push_back(appears("run/layer-00000.safetensors"));
  points.push_back(starting("states-00000.safetensors.tmp-"));
  points.push_back(appears("run/states-00000.safetensors"));
  points.push_back(appears("run/layer-00001.safetensors"));
  points.push_back(appears("run/states-00002.safetensors"));
  points.push_back(appears("run/layer-00003.safetensors"));
  points.push_back(starting("saved.partial-"));
  points.push_back(appears("saved"));
  points.push_back(starting("packed.partial-"));
  points.push_back(appears("packed"));
  std::size_t killed = 0;
  for (const auto& point : points) killed += place.kill_when(point) ? 1 : 0;
  BOOST_TEST_MESSAGE("killed at " << killed << " of " << points.size() << " points");
  // On a busy machine the four files that are there for a moment may be missed, and the two folders
  // that appear when the run ends.
  BOOST_TEST(killed >= points.size() - 6);
  check_success(place.run());
  expected.check(place);
}

}  // namespace

BOOST_AUTO_TEST_CASE(an_uninterrupted_run_with_a_checkpoint_gives_the_same_bytes) {
  const Texts texts;
  for (const Arguments& options : {uniform, Arguments{"--gmp", "--sparsity", "0.5"}}) {
    Arguments given = options;
    const bool gmp = options.front() == "--gmp";
    Place place(texts, given), plain(texts, given);
    if (gmp)
      for (Place* p : {&place, &plain}) p->words.erase(p->words.begin() + 3, p->words.begin() + 5);
    check_success(plain.run({}));
    check_success(place.run());
    BOOST_CHECK(cli::read_text(place / "saved/model.safetensors") ==
                cli::read_text(plain / "saved/model.safetensors"));
    BOOST_CHECK(cli::read_text(place / "packed/packed.safetensors") ==
                cli::read_text(plain / "packed/packed.safetensors"));
    BOOST_CHECK(without_times(cli::parse_json(cli::read_text(place / "report.json"))) ==
                without_times(cli::parse_json(cli::read_text(plain / "report.json"))));
    // The last layer's output is needed by nobody.
    BOOST_TEST(!fs::exists(place.in_run("states-00003.safetensors")));
    BOOST_TEST(!fs::exists(place.in_run("states-00002.safetensors")));
  }
}

BOOST_AUTO_TEST_CASE(killed_at_every_file_it_ends_with_the_same_bytes) {
  check_points(Texts(), uniform, false);
}

BOOST_AUTO_TEST_CASE(killed_at_every_file_a_planned_run_ends_with_the_same_bytes) {
  check_points(Texts(), best, true);
}

BOOST_AUTO_TEST_CASE(a_rotated_run_goes_on_from_the_same_model_and_no_other) {
  const Texts texts;
  const Arguments options{"--wbits", "4", "--rotate", "folded", "--prune-only", "fc1"};
  const Expected expected(texts, options);
  Place place(texts, options);
  BOOST_TEST(place.kill_at("run.rotated-model"));
  BOOST_TEST(place.kill_at("run/layer-00001.safetensors"));
  BOOST_TEST(fs::exists(place / "run.rotated-model"));  // what the killed process left
  const Arguments words = place.words;
  place.words.erase(place.words.end() - 4, place.words.end() - 2);
  check_failure(place.run(), 2, "pare", {"another --rotate"});
  place.words = words;
  place.words.insert(place.words.end(), {"--rotate-seed", "2"});
  check_failure(place.run(), 2, "pare", {"another --rotate-seed"});
  place.words = words;
  check_success(place.run());
  expected.check(place);
}

BOOST_AUTO_TEST_CASE(killed_after_any_time_it_ends_with_the_same_bytes) {
  const Texts texts;
  const Expected expected(texts, best_of_fc1);
  test::Random random(7);
  const Place place(texts, best_of_fc1);
  int kills = 0;
  // Delays from nothing to a little more than a run takes, growing so that the end is reached.
  constexpr int attempts = PARE_KILLS;
  for (int attempt = 0; attempt < attempts; ++attempt) {
    using clock = std::chrono::steady_clock;
    const double longest = 1.2e6 * expected.seconds * (attempt + 1) / attempts;
    const auto until = clock::now() + std::chrono::microseconds(1 + random.below(int(longest)));
    if (!place.kill_when([&] { return clock::now() >= until; })) break;
    ++kills;
  }
  BOOST_TEST_MESSAGE("killed " << kills << " times");
  BOOST_TEST(kills > 0);
  check_success(place.run());
  expected.check(place);
}

BOOST_AUTO_TEST_CASE(a_finished_run_only_repeats_its_report) {
  const Texts texts;
  const Expected expected(texts, best_of_fc1);
  const Place place(texts, best_of_fc1);
  check_success(place.run());
  const auto saved = cli::listing(place / "saved"), packed = cli::listing(place / "packed");
  fs::remove(place / "report.json");
  const Outcome again = place.run();
  check_success(again);
  BOOST_TEST(test::contains(again.out, "going on in run: 4 of 4 layers are finished"));
  BOOST_CHECK(cli::listing(place / "saved") == saved);
  BOOST_CHECK(cli::listing(place / "packed") == packed);
  expected.check(place);
  // A result that was removed is made again, without compressing anything.
  fs::remove_all(place / "saved");
  check_success(place.run());
  expected.check(place);
  // What somebody else put there stays.
  fs::remove_all(place / "saved");
  fs::create_directory(place / "saved");
  cli::write_text(place / "saved/mine.txt", "mine");
  check_failure(place.run(), 2, "pare", {"--save saved: the folder is not empty; name a new one"});
}

BOOST_AUTO_TEST_CASE(a_changed_option_model_or_text_is_refused_by_name) {
  const Texts texts;
  Place place(texts, uniform);
  BOOST_REQUIRE(place.kill_at("run/layer-00000.safetensors"));
  const Arguments given = place.words;
  const auto with = [&](const std::string& option, const std::string& value) {
    place.words = given;
    const auto at = std::find(place.words.begin(), place.words.end(), option);
    if (at == place.words.end())
      place.words.insert(place.words.end(), {option, value});
    else
      *(at + 1) = value;
    return place.run();
  };
  const std::string made = "run: was made with another ";
  check_failure(with("--sparsity", "0.6"), 2, "pare",
                {"--checkpoint run: ", made + "--sparsity: it was 0.5, it is 0.6"});
  check_failure(with("--wbits", "3"), 2, "pare", {made + "--wbits: it was 4, it is 3"});
  check_failure(with("--nsamples", "3"), 2, "pare", {made + "--nsamples: it was 4, it is 3"});
  check_failure(with("--target-avg-bits", "3.5"), 2, "pare",
                {made + "--target-avg-bits: it was null, it is 3.5"});
  place.words = given;
  place.words.push_back("--act-order");
  check_failure(place.run(), 2, "pare", {made + "--act-order: it was false, it is true"});

  place.words = given;
  const std::string text = cli::read_text(texts.calibration);
  cli::write_text(texts.calibration, text + "and");
  check_failure(place.run(), 2, "pare",
                {made + "CALIB_TEXT: it was \"", "by its fingerprint, it is"});
  cli::write_text(texts.calibration, text);
  check_failure(with("--eval", "other=" + texts.evaluation.string()), 2, "pare",
                {made + "--eval: it was [\"short\"], it is [\"other\"]"});

  // A run of another version computes other numbers, perhaps.
  const std::string record = cli::read_text(place.in_run("run.json"));
  auto all = nlohmann::ordered_json::parse(record);
  all["run"]["identity"]["options"]["version of pare"] = "0.0.1";
  all["checksum"] = pare::hex_text(pare::fingerprint(all["run"].dump()));
  cli::write_text(place.in_run("run.json"), all.dump());
  place.words = given;
  check_failure(place.run(), 2, "pare", {made + "version of pare: it was \"0.0.1\", it is"});
  cli::write_text(place.in_run("run.json"), record);
  check_success(place.run());
}

BOOST_AUTO_TEST_CASE(what_is_read_may_have_another_name) {
  const Texts texts;
  Place place(texts, uniform);
  place.words[1] = "model";
  fs::create_directory(place / "model");
  for (const auto& entry : fs::directory_iterator(tiny))
    fs::copy_file(entry.path(), place / "model" / entry.path().filename());
  BOOST_REQUIRE(place.kill_at("run/layer-00001.safetensors"));
  fs::rename(place / "model", place / "moved");
  fs::rename(texts.calibration, texts / "moved.txt");
  place.words[1] = "./moved/";
  place.words[2] = (texts / "moved.txt").string();
  const Outcome outcome = place.run();
  check_success(outcome);
  BOOST_TEST(test::contains(outcome.out, "going on in run: "));
}

BOOST_AUTO_TEST_CASE(an_infinite_perplexity_is_gone_on_from) {
  const Texts texts;
  Place place(texts, uniform);
  const fs::path model = place / "model";
  fs::create_directory(model);
  for (const auto& entry : fs::directory_iterator(tiny))
    if (entry.path().filename() != "model.safetensors")
      fs::copy_file(entry.path(), model / entry.path().filename());
  // Predictions that are sure and wrong.
  std::vector<pare::TensorData> tensors;
  const pare::SafetensorsFile file(tiny / "model.safetensors");
  for (const pare::TensorInfo& info : file.tensors()) {
    tensors.push_back(cli::tensor(info.name, file.read_float(info.name)));
    tensors.back().shape = info.shape;
    if (!info.name.ends_with("decoder.final_layer_norm.weight")) continue;
    Matrix<float> values = file.read_float(info.name);
    for (index_t k = 0; k < values.size(); ++k) values.data()[k] *= 1e6f;
    tensors.back().bytes = cli::tensor(info.name, values).bytes;
  }
  pare::write_safetensors(model / "model.safetensors", tensors);
  place.words[1] = "model";
  BOOST_REQUIRE(place.kill_at("run/layer-00001.safetensors"));
  BOOST_TEST(test::contains(cli::read_text(place.in_run("run.json")), "\"number\": \"inf\""));
  const Outcome outcome = place.run();
  check_success(outcome);
  BOOST_TEST(test::contains(outcome.out, "going on in run: "));
  BOOST_TEST(test::contains(outcome.out, "perplexity of the dense model on short: inf"));
  BOOST_TEST(test::contains(outcome.out, "perplexity of the compressed model on short: inf\n"));
  check_success(place.run());
}

BOOST_AUTO_TEST_CASE(sensitivities_of_a_run_are_those_of_its_file) {
  const Texts texts;
  Place place(texts, best_of_fc1);
  const std::string file = (place / "s.json").string();
  place.words.insert(place.words.end(), {"--sensitivity", file});
  BOOST_REQUIRE(place.kill_at("run/layer-00000.safetensors"));
  const std::string kept = cli::read_text(file);
  cli::write_text(file, kept.substr(0, kept.size() / 2));
  check_failure(place.run(), 2, "pare", {file + ": sensitivities: not valid JSON at byte "});
  Json other = cli::parse_json(kept);
  other["linears"][0]["modes"][0]["kept"][0] = 7;
  cli::write_text(file, other.dump());
  check_failure(place.run(), 2, "pare", {"--sensitivity " + file + ": holds others than those in"});
  fs::remove(file);
  check_success(place.run());
  BOOST_CHECK(cli::read_text(file) == kept);
}

BOOST_AUTO_TEST_CASE(a_changed_weight_of_the_model_is_refused) {
  const Texts texts;
  fs::create_directory(texts / "model");
  for (const auto& entry : fs::directory_iterator(tiny))
    fs::copy_file(entry.path(), texts / "model" / entry.path().filename());
  Place place(texts, uniform);
  place.words[1] = (texts / "model").string();
  BOOST_REQUIRE(place.kill_at("run/layer-00000.safetensors"));
  const fs::path weights = texts / "model/model.safetensors";
  std::string bytes = cli::read_text(weights);
  bytes[bytes.size() - 100] = char(bytes[bytes.size() - 100] ^ 1);
  cli::write_text(weights, bytes);
  check_failure(place.run(), 2, "pare",
                {"was made with another MODEL/model.safetensors: it was \"", "by its fingerprint"});
}

BOOST_AUTO_TEST_CASE(damaged_files_are_refused_by_name) {
  const Texts texts;
  const Place place(texts, best_of_fc1);
  BOOST_REQUIRE(place.kill_at("run/layer-00002.safetensors"));
  test::Random random(3);
  std::vector<std::string> names{"run.json"};
  const Json run = cli::parse_json(cli::read_text(place.in_run("run.json"))).at("run");
  for (const Json& layer : run.at("layers")) names.push_back(layer.at("file"));
  names.push_back(run.at("states").at("file"));
  names.push_back("sensitivities.json");
  BOOST_TEST(names.size() >= 4u);
  for (const std::string& name : names) {
    const std::string file = place.in_run(name), good = cli::read_text(file);
    const auto refused = [&](const std::string& content) {
      cli::write_text(file, content);
      check_failure(place.run(), 2, "pare", {"run/" + name + ": "});
    };
    refused(good.substr(0, good.size() / 2));
    refused("");
    for (int flip = 0; flip < 2; ++flip) {
      std::string bad = good;
      char& byte = bad[std::size_t(random.below(index_t(bad.size() - 1)))];
      byte = char(byte ^ 4);
      refused(bad);
    }
    fs::remove(file);
    if (name != "run.json") check_failure(place.run(), 2, "pare", {"run/" + name + ": is missing"});
    cli::write_text(file, good);
  }
  check_success(place.run());
}

BOOST_AUTO_TEST_CASE(a_full_disk_is_an_error_that_can_be_gone_on_from) {
  const Texts texts;
  const Expected expected(texts, uniform);
  const Place place(texts, uniform);
  // Blocks of 512 bytes: too little for the record, a layer, the states of 4 windows, the results.
  for (const auto& [blocks, file] : std::vector<std::pair<long, std::string>>{{1, "run.json"},
                                                                              {1000, "layer-00000"},
                                                                              {4000, "saved"}}) {
    const Outcome outcome = place.run_with_small_files(blocks);
    check_failure(outcome, 1, "pare", {file, "cannot "});
    BOOST_TEST(!fs::exists(place / "saved"));
  }
  check_success(place.run());
  expected.check(place);
}

BOOST_AUTO_TEST_CASE(a_full_file_system_is_an_error_that_can_be_gone_on_from) {
  const Texts texts;
  const Expected expected(texts, uniform);
  const Place place(texts, uniform);
  fs::create_directory(place / "run");
  if (::mount("tmpfs", place.in_run("").c_str(), "tmpfs", 0, "size=2m") != 0) {
    std::cout << "skipped: a full file system: mounting one is not allowed here\n";
    return;
  }
  struct Unmount {
    std::string folder;
    ~Unmount() { ::umount2(folder.c_str(), MNT_DETACH); }
  } const unmount{place.in_run("")};
  const Outcome outcome = place.run();
  check_failure(outcome, 1, "pare", {"run/", "No space left on device"});
  BOOST_TEST(fs::exists(place.in_run("layer-00000.safetensors")));
  ::mount("tmpfs", place.in_run("").c_str(), "tmpfs", MS_REMOUNT, "size=64m");
  check_success(place.run());
  expected.check(place);
}

BOOST_AUTO_TEST_CASE(a_run_that_is_at_work_or_another_folder_is_left_alone) {
  const Texts texts;
  Place place(texts, uniform);
  fs::create_directory(place / "run");
  const int held = ::open(place.in_run("").c_str(), O_RDONLY | O_DIRECTORY);
  BOOST_REQUIRE(::flock(held, LOCK_EX) == 0);
  check_failure(place.run(), 2, "pare", {"--checkpoint run: ", "another process is at work on it"});
  ::close(held);
  cli::write_text(place.in_run("notes.txt"), "mine");
  check_failure(place.run(), 2, "pare", {"there is no run.json in it and it is not empty"});
  BOOST_TEST(cli::read_text(place.in_run("notes.txt")) == "mine");
}
