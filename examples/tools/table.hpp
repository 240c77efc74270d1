// pare table: reports of compress and compare side by side.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "pare/report/text.hpp"
#include "tools/model_io.hpp"

namespace tool {

namespace detail {

/// What a report says of one model.
struct TableRow {
  std::string name;
  std::optional<double> average_bits, sparsity, stored_bits;  ///< none: nothing was compressed
  std::map<int, index_t> channels;                            ///< how many have each width
  std::vector<std::pair<std::string, double>> perplexities;
};

inline std::optional<double> number_or_none(const pare::Json& json) {
  return json.is_null() ? std::nullopt : std::optional(json.get<double>());
}

/// Perplexities are null in JSON where they are infinite.
inline std::vector<std::pair<std::string, double>> perplexities_of(const pare::Json& json) {
  std::vector<std::pair<std::string, double>> result;
  for (const auto& [text, value] : json.items())
    result.emplace_back(text, number_or_none(value).value_or(HUGE_VAL));
  return result;
}

inline TableRow row_of(const std::string& name, const pare::Json& totals,
                       const pare::Json& perplexities) {
  TableRow row{.name = name,
               .average_bits = number_or_none(totals.at("average_bits")),
               .sparsity = totals.at("sparsity").get<double>(),
               .stored_bits = totals.at("stored_bits_per_weight").get<double>(),
               .channels = {},
               .perplexities = perplexities_of(perplexities)};
  for (const auto& [bits, count] : totals.at("bits_histogram").items())
    row.channels[pare::detail::whole_number_of_text<std::uint8_t>(bits, "bits_histogram")] =
        count.get<index_t>();
  return row;
}

/// The rows of one report, that of the dense model first.
inline std::vector<TableRow> rows_of(const std::string& name, const pare::Json& report) {
  std::vector<TableRow> rows(1);
  rows.front().name = "dense";
  if (report.contains("runs")) {
    for (const pare::Json& run : report["runs"])
      if (run.at("config").is_null())
        rows.front().perplexities = perplexities_of(run.at("perplexity"));
      else
        rows.push_back(row_of(name + ": " + run.at("name").get<std::string>(), run.at("totals"),
                              run.at("perplexity")));
    return rows;
  }
  const pare::Json& perplexity = report.at("perplexity");
  rows.front().perplexities = perplexities_of(perplexity.at("dense"));
  rows.push_back(row_of(name, report.at("totals"), perplexity.at("compressed")));
  return rows;
}

inline std::vector<TableRow> read_rows(const std::string& name, const fs::path& file) {
  const std::string text = pare::detail::read_whole_file(file);
  try {
    return rows_of(name, pare::Json::parse(text));
  } catch (const std::exception& e) {  // of nlohmann, and of widths
    throw pare::format_error(file.string() + ": not a report of compress or compare: " + e.what());
  }
}

/// Throws usage_error unless two dense models have the same perplexities, but for what another
/// processor makes of them.
inline void require_same_dense(const std::string& first_file, const TableRow& first,
                               const std::string& file, const TableRow& dense) {
  bool same = first.perplexities.size() == dense.perplexities.size();
  for (std::size_t i = 0; same && i < dense.perplexities.size(); ++i) {
    const auto& [text, value] = first.perplexities[i];
    const auto& [other_text, other] = dense.perplexities[i];
    same = text == other_text && std::abs(value - other) <= 1e-3 * std::abs(value);
  }
  if (same) return;
  const auto shown = [](const TableRow& row) {
    std::string all;
    for (const auto& [text, value] : row.perplexities)
      all += (all.empty() ? "" : ", ") + text + " " + pare::detail::format_text("%.3f", value);
    return all.empty() ? std::string("nothing") : all;
  };
  throw usage_error(first_file + " and " + file + ": their dense models differ, perplexity on " +
                    shown(first) + " and on " + shown(dense) +
                    "; name reports of one model and the same texts");
}

inline std::string number_or_dash(const std::optional<double>& value, const char* format) {
  return value ? pare::detail::format_text(format, *value) : "-";
}

inline void print_rows(const std::vector<TableRow>& rows) {
  const auto& tiers = pare::default_tiers();
  std::set<int> widths(tiers.begin(), tiers.end());
  std::size_t name_size = 5;
  for (const TableRow& row : rows) {
    for (const auto& [bits, count] : row.channels) widths.insert(bits);
    name_size = std::max(name_size, row.name.size());
  }
  const int names = int(name_size);
  const int histogram = 6 * int(widths.size());
  std::printf("%-*s %6s  %*s  %7s %7s  %s\n", names, "", "mean", histogram,
              "channels of each width, %", "pruned", "stored", "perplexity on");
  std::printf("%-*s %6s  ", names, "", "bits");
  for (const int bits : widths) std::printf("%6d", bits);
  std::printf("  %7s %7s ", "%", "bits");
  for (const auto& [text, value] : rows.front().perplexities)
    std::printf(" %10s", text.substr(0, 10).c_str());
  std::printf("\n");
  for (const TableRow& row : rows) {
    index_t all = 0;
    for (const auto& [bits, count] : row.channels) all += count;
    std::printf("%-*s %6s  ", names, row.name.c_str(),
                number_or_dash(row.average_bits, "%.2f").c_str());
    for (const int bits : widths) {
      const auto found = row.channels.find(bits);
      std::printf("%6s",
                  found == row.channels.end()
                      ? "-"
                      : pare::detail::format_text("%.1f", 100 * double(found->second) / double(all))
                            .c_str());
    }
    const std::optional<double> pruned =
        row.sparsity ? std::optional(100 * *row.sparsity) : std::nullopt;
    std::printf("  %7s %7s ", number_or_dash(pruned, "%.1f").c_str(),
                number_or_dash(row.stored_bits, "%.3f").c_str());
    for (const auto& [text, value] : row.perplexities) std::printf(" %10.3f", value);
    std::printf("\n");
  }
}

}  // namespace detail

/// Prints one row per report and one for the dense model, which must be the same in all.
/// @param reports  NAME=FILE each
inline void print_table(const std::vector<std::string>& reports) {
  std::vector<detail::TableRow> all;
  std::string first_file;
  for (const std::string& argument : reports) {
    const std::optional<NamedFile> report = parse_named_file(argument);
    if (!report) {
      const bool file = !argument.empty() && argument.find('=') == std::string::npos;
      throw usage_error(written("REPORT", argument) +
                        ": a row needs a name; write NAME=FILE, for instance uniform=" +
                        (file ? argument : "report.json"));
    }
    const std::string file = report->file.string();
    std::vector<detail::TableRow> rows = detail::read_rows(report->name, file);
    if (all.empty()) {
      all = std::move(rows);
      first_file = file;
      continue;
    }
    detail::require_same_dense(first_file, all.front(), file, rows.front());
    all.insert(all.end(), rows.begin() + 1, rows.end());
  }
  detail::print_rows(all);
}

}  // namespace tool
