// The error types of pare. Every one carries a message that names the argument, what was
// expected and what was given; they are thrown in release builds too.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "pare/core/config.hpp"

// The types lie outside PARE_TARGET: what one object file throws every other one can catch.
namespace pare {

/// Base of everything pare throws on purpose.
class error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An argument or an option that cannot be used: wrong value, wrong combination.
class argument_error : public error {
 public:
  using error::error;
};

/// A matrix or vector whose shape does not fit the others.
class shape_error : public argument_error {
 public:
  using argument_error::argument_error;
};

/// NaN or infinity where a finite number is needed. `row()` and `column()` say where; a column of
/// -1 means the whole row.
class non_finite_error : public argument_error {
 public:
  /// @param message  what was expected and what came
  /// @param row      index of the first bad number
  /// @param column   the same, -1 for a whole row
  non_finite_error(const std::string& message, std::ptrdiff_t row, std::ptrdiff_t column)
      : argument_error(message), row_(row), column_(column) {}
  /// Row of the first number that is not finite.
  std::ptrdiff_t row() const { return row_; }
  /// Its column, -1 when a whole row is meant.
  std::ptrdiff_t column() const { return column_; }

 private:
  std::ptrdiff_t row_, column_;
};

/// A bit target that no choice of tiers can meet. The message states the attainable range.
class unattainable_error : public argument_error {
 public:
  using argument_error::argument_error;
};

/// A Hessian that could not be factored with any damping of the ladder.
class factorization_error : public error {
 public:
  using error::error;
};

/// A violated post-condition; `condition()` is its number in docs/design.md, which the message
/// names.
class invariant_error : public error {
 public:
  /// @param condition  number of the post-condition
  /// @param detail     what was found
  /// @param context    of what: the linear, the policy
  invariant_error(int condition, const std::string& detail, const std::string& context = {})
      : error((context.empty() ? context : context + ": ") + "post-condition " +
              std::to_string(condition) + " violated: " + detail +
              "; see docs/design.md, Post-conditions"),
        condition_(condition),
        detail_(detail),
        context_(context) {}
  /// Number of the post-condition.
  int condition() const { return condition_; }
  /// What was found.
  const std::string& detail() const { return detail_; }
  /// Of what; empty when it is not known.
  const std::string& context() const { return context_; }

 private:
  int condition_;
  std::string detail_, context_;
};

/// A file whose content is not what its format asks for. The message begins with the file's name.
class format_error : public error {
 public:
  using error::error;
};

/// A file or folder that cannot be read or written. The message begins with its name.
class io_error : public error {
 public:
  using error::error;
};

}  // namespace pare

namespace pare::inline PARE_TARGET {

/// Calls f(), putting `context` in front of the message of an error of pare that it throws, which
/// stays of its type. Errors of files begin with the file's name and stay as they are.
template <class F>
auto in_context(std::string_view context, const F& f) -> decltype(f()) {
  const auto text = [&](const error& e) { return std::string(context) + ": " + e.what(); };
  try {
    return f();
  } catch (const non_finite_error& e) {
    throw non_finite_error(text(e), e.row(), e.column());
  } catch (const unattainable_error& e) {
    throw unattainable_error(text(e));
  } catch (const shape_error& e) {
    throw shape_error(text(e));
  } catch (const argument_error& e) {
    throw argument_error(text(e));
  } catch (const factorization_error& e) {
    throw factorization_error(text(e));
  } catch (const invariant_error& e) {
    throw invariant_error(e.condition(), e.detail(),
                          std::string(context) + (e.context().empty() ? "" : ": " + e.context()));
  }
}

/// Text "(rows, cols)" for messages.
inline std::string shape_text(std::ptrdiff_t rows, std::ptrdiff_t cols) {
  std::string text = "(";
  text += std::to_string(rows);
  text += ", ";
  text += std::to_string(cols);
  text += ")";
  return text;
}

/// Throws shape_error "<what>: expected <expected>, got <given>" unless the two shapes agree.
inline void require_shape(std::string_view what, std::pair<std::ptrdiff_t, std::ptrdiff_t> expected,
                          std::pair<std::ptrdiff_t, std::ptrdiff_t> given) {
  if (expected != given)
    throw shape_error(std::string(what) + ": expected shape " +
                      shape_text(expected.first, expected.second) + ", got " +
                      shape_text(given.first, given.second));
}

}  // namespace pare
