// Files and folders that a run writes at its end.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

#include "pare/core/error.hpp"
#include "pare/report/json.hpp"
#include "pare/storage/output_file.hpp"

namespace pare::inline PARE_TARGET {

/// A result that was computed and cannot be written.
class save_error : public error {
 public:
  using error::error;
};

namespace detail {

/// Calls f(), which writes what a run keeps: that it cannot is no fault of what was asked for.
template <class F>
auto kept(const F& f) {
  try {
    return f();
  } catch (const io_error& e) {
    throw save_error(e.what());
  }
}

}  // namespace detail

/// Writes JSON to a file, whole or not at all. Bytes that are no UTF-8, as names of files may be,
/// are replaced.
/// @throws save_error
inline void write_json(const std::filesystem::path& file, const Json& json) {
  const std::string text = json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  detail::kept([&] {
    detail::OutputFile out{file};
    out.write(std::as_bytes(std::span(text)));
    out.commit();
  });
}

}  // namespace pare
