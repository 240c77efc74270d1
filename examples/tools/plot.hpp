// Pictures of a comparison, drawn by gnuplot from scripts that stay beside them.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tools/model_io.hpp"

namespace tool {

/// A named curve: (x, y) by rising x.
struct Curve {
  std::string name;
  std::string colour;  ///< as gnuplot takes it, '#rrggbb'
  std::vector<std::pair<double, double>> points;
};

/// One picture of several: curves over the same axis, and the value of the dense model.
struct Panel {
  std::string y_label;
  std::vector<Curve> curves;
  std::optional<double> dense;
};

/// How many channels of a linear have each width.
struct WidthCounts {
  std::string name;
  std::map<int, index_t> channels;
};

/// What is written into the folder of --plot.
inline constexpr const char* plot_files[] = {"compare.json", "frontier.gnuplot", "frontier.svg",
                                             "widths.gnuplot", "widths.svg"};

/// Checks --plot before hours of work. Returns the folder: new, or there and writable.
inline fs::path plot_folder(const std::string& given) {
  const fs::path path = output_path("--plot", given);
  std::error_code error;
  if (fs::exists(fs::symlink_status(path, error))) {
    if (!fs::is_directory(path, error) || ::access(path.c_str(), W_OK | X_OK) != 0)
      throw usage_error("--plot " + given +
                        ": exists and is no folder that can be written; name "
                        "another");
  } else {
    detail::require_writable("--plot", given, path.parent_path());
  }
  std::istringstream folders(std::getenv("PATH") ? std::getenv("PATH") : "");
  for (std::string folder; std::getline(folders, folder, ':');)
    if (::access((fs::path(folder) / "gnuplot").c_str(), X_OK) == 0) return path;
  throw usage_error("--plot " + given +
                    ": gnuplot draws the pictures and is not installed; install "
                    "gnuplot-nox, or write --report FILE.json instead");
}

namespace detail {

/// `text` as gnuplot's single-quoted string.
inline std::string gnuplot_quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) {
    quoted += c == '\n' ? ' ' : c;
    if (c == '\'') quoted += c;
  }
  return quoted + "'";
}

/// Labels of a logarithmic axis, three at least: round numbers within the range.
inline std::string logarithmic_tics(double low, double high) {
  std::vector<double> tics;
  for (const std::vector<double>& mantissas :
       {std::vector<double>{1, 2, 5},
        {1, 1.5, 2, 3, 4, 5, 7},
        {1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7, 7.5, 8, 8.5, 9, 9.5}}) {
    tics.clear();
    for (int power = -12; power <= 12; ++power)
      for (const double m : mantissas)
        if (const double tic = m * std::pow(10.0, power); tic >= low && tic <= high)
          tics.push_back(tic);
    if (tics.size() >= 3) break;
  }
  std::ostringstream text;
  text << '(';
  for (const double tic : tics) text << (tic == tics.front() ? "" : ", ") << tic;
  return text.str() + ")";
}

inline void write_text_file(const fs::path& file, const std::string& text) {
  pare::detail::OutputFile out{file};
  out.write(std::as_bytes(std::span(text)));
  out.commit();
}

/// Runs `gnuplot SCRIPT` in `folder`.
/// @throws std::runtime_error when it fails
inline void run_gnuplot(const fs::path& folder, const std::string& script) {
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("gnuplot: cannot be started");
  if (child == 0) {
    if (::chdir(folder.c_str()) == 0) ::execlp("gnuplot", "gnuplot", script.c_str(), nullptr);
    ::_exit(127);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    throw std::runtime_error((folder / script).string() + ": gnuplot failed");
}

}  // namespace detail

/// Draws panels two in a row into FOLDER/frontier.svg.
/// @param x_label  of all panels
inline void plot_frontier(const fs::path& folder, const std::string& title,
                          const std::string& x_label, const std::vector<Panel>& panels) {
  std::ostringstream s;
  s.precision(10);
  const std::size_t rows = (panels.size() + 1) / 2;
  s << "set terminal svg size 1240," << 60 + 360 * rows
    << " dynamic font 'sans,13' background 'white'\n"
    << "set output 'frontier.svg'\n"
    << "set multiplot layout " << rows << ",2 title " << detail::gnuplot_quoted(title)
    << " noenhanced\n"
    << "set logscale y\nunset mytics\nset grid back lc rgb '#dddddd'\n"
    << "set key outside right top vertical noenhanced samplen 1.5\n"
    << "set xlabel " << detail::gnuplot_quoted(x_label) << "\n"
    << "set format y '%g'\n";
  for (std::size_t p = 0; p < panels.size(); ++p)
    for (std::size_t c = 0; c < panels[p].curves.size(); ++c) {
      s << "$data_" << p << '_' << c << " << EOD\n";
      for (const auto& [x, y] : panels[p].curves[c].points) s << x << ' ' << y << '\n';
      s << "EOD\n";
    }
  for (std::size_t p = 0; p < panels.size(); ++p) {
    double low = panels[p].dense.value_or(std::numeric_limits<double>::infinity());
    double high = panels[p].dense.value_or(0);
    for (const Curve& curve : panels[p].curves)
      for (const auto& [x, y] : curve.points) low = std::min(low, y), high = std::max(high, y);
    low /= 1.03;
    high *= 1.03;
    s << "set yrange [" << low << ':' << high << "]\nset ytics "
      << detail::logarithmic_tics(low, high) << "\n";
    s << "set ylabel " << detail::gnuplot_quoted(panels[p].y_label) << " noenhanced\nplot ";
    for (std::size_t c = 0; c < panels[p].curves.size(); ++c)
      s << (c > 0 ? ", " : "") << "$data_" << p << '_' << c << " with linespoints lw 2 pt "
        << 5 + 2 * c << " ps 0.7 lc rgb '" << panels[p].curves[c].colour << "' title "
        << detail::gnuplot_quoted(panels[p].curves[c].name);
    if (panels[p].dense)
      s << ", " << *panels[p].dense << " with lines dt 2 lc rgb '#888888' title 'dense'";
    s << '\n';
  }
  s << "unset multiplot\n";
  detail::write_text_file(folder / "frontier.gnuplot", s.str());
  detail::run_gnuplot(folder, "frontier.gnuplot");
}

/// Draws the shares of the widths in every linear into FOLDER/widths.svg.
inline void plot_widths(const fs::path& folder, const std::string& title,
                        const std::vector<WidthCounts>& linears, const std::vector<int>& widths) {
  std::ostringstream s;
  s.precision(6);
  s << "set terminal svg size " << 220 + 22 * linears.size()
    << ",420 dynamic font 'sans,12' background 'white'\n"
    << "set output 'widths.svg'\nset title " << detail::gnuplot_quoted(title) << " noenhanced\n"
    << "set style data histograms\nset style histogram rowstacked\nset style fill solid 0.9\n"
    << "set boxwidth 0.85\nset yrange [0:100]\nset ylabel 'channels, %'\n"
    << "set xtics rotate by 60 right noenhanced font ',10'\nset key outside right noenhanced\n"
    << "$data << EOD\n";
  for (const WidthCounts& linear : linears) {
    index_t all = 0;
    for (const auto& [width, count] : linear.channels) all += count;
    s << '"' << linear.name << '"';
    for (const int width : widths) {
      const auto found = linear.channels.find(width);
      const index_t count = found == linear.channels.end() ? 0 : found->second;
      s << ' ' << (all > 0 ? 100.0 * double(count) / double(all) : 0.0);
    }
    s << '\n';
  }
  s << "EOD\nplot ";
  const char* colours[] = {"#313695", "#74add1", "#fee090", "#f46d43", "#a50026"};
  for (std::size_t k = 0; k < widths.size(); ++k)
    s << (k > 0 ? ", " : "") << "$data using " << k + 2 << (k == 0 ? ":xtic(1)" : "") << " lc rgb '"
      << colours[k % 5] << "' title '" << widths[k] << " bits'";
  s << '\n';
  detail::write_text_file(folder / "widths.gnuplot", s.str());
  detail::run_gnuplot(folder, "widths.gnuplot");
}

}  // namespace tool
