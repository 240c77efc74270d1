// What a pickle of tensors is made of: its opcodes, the globals it may name, plain values.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pare/core/config.hpp"

namespace pare::inline PARE_TARGET {

/// A piece of memory that tensors are views of; its bytes lie outside the pickle.
struct PickledStorage {
  std::string_view key;  ///< what it is called in the archive
  /// Name of the element type as safetensors has it.
  const char* dtype = "";
  /// Number of elements.
  std::uint64_t elements = 0;
};

/// A tensor as a view of a storage, in elements.
struct PickledTensor {
  /// Key in the dictionary.
  std::string_view name;
  /// The memory it is a view of.
  PickledStorage storage;
  /// First element, counted from the storage's first.
  std::uint64_t offset = 0;
  /// Both counted in elements.
  std::vector<std::int64_t> shape, stride;  ///< of the same length
};

namespace detail {

/// The opcodes that torch.save writes for a dictionary of tensors. Every other one is refused.
enum class PickleOp : std::uint8_t {
  mark = '(',
  stop = '.',
  none = 'N',
  bin_int = 'J',
  bin_int1 = 'K',
  bin_int2 = 'M',
  long1 = 0x8a,
  new_true = 0x88,
  new_false = 0x89,
  bin_unicode = 'X',
  short_bin_unicode = 0x8c,
  empty_dict = '}',
  set_item = 's',
  set_items = 'u',
  empty_tuple = ')',
  tuple = 't',
  tuple1 = 0x85,
  tuple2 = 0x86,
  tuple3 = 0x87,
  bin_get = 'h',
  long_bin_get = 'j',
  bin_put = 'q',
  long_bin_put = 'r',
  memoize = 0x94,
  global = 'c',
  stack_global = 0x93,
  reduce = 'R',
  build = 'b',
  bin_pers_id = 'Q',
  proto = 0x80,
  frame = 0x95
};

/// "0x63 (GLOBAL)": an opcode for messages, with the name it goes by in Python's pickletools.
inline std::string pickle_op_text(std::uint8_t op) {
  struct Named {
    std::uint8_t op;
    const char* name;
  };
  static constexpr Named named[] = {{'(', "MARK"},
                                    {'.', "STOP"},
                                    {'0', "POP"},
                                    {'1', "POP_MARK"},
                                    {'2', "DUP"},
                                    {'F', "FLOAT"},
                                    {'I', "INT"},
                                    {'J', "BININT"},
                                    {'K', "BININT1"},
                                    {'L', "LONG"},
                                    {'M', "BININT2"},
                                    {'N', "NONE"},
                                    {'P', "PERSID"},
                                    {'Q', "BINPERSID"},
                                    {'R', "REDUCE"},
                                    {'S', "STRING"},
                                    {'T', "BINSTRING"},
                                    {'U', "SHORT_BINSTRING"},
                                    {'V', "UNICODE"},
                                    {'X', "BINUNICODE"},
                                    {'a', "APPEND"},
                                    {'b', "BUILD"},
                                    {'c', "GLOBAL"},
                                    {'d', "DICT"},
                                    {'}', "EMPTY_DICT"},
                                    {'e', "APPENDS"},
                                    {'g', "GET"},
                                    {'h', "BINGET"},
                                    {'i', "INST"},
                                    {'j', "LONG_BINGET"},
                                    {'l', "LIST"},
                                    {']', "EMPTY_LIST"},
                                    {'o', "OBJ"},
                                    {'p', "PUT"},
                                    {'q', "BINPUT"},
                                    {'r', "LONG_BINPUT"},
                                    {'s', "SETITEM"},
                                    {'t', "TUPLE"},
                                    {')', "EMPTY_TUPLE"},
                                    {'u', "SETITEMS"},
                                    {'G', "BINFLOAT"},
                                    {'B', "BINBYTES"},
                                    {'C', "SHORT_BINBYTES"},
                                    {0x80, "PROTO"},
                                    {0x81, "NEWOBJ"},
                                    {0x82, "EXT1"},
                                    {0x83, "EXT2"},
                                    {0x84, "EXT4"},
                                    {0x85, "TUPLE1"},
                                    {0x86, "TUPLE2"},
                                    {0x87, "TUPLE3"},
                                    {0x88, "NEWTRUE"},
                                    {0x89, "NEWFALSE"},
                                    {0x8a, "LONG1"},
                                    {0x8b, "LONG4"},
                                    {0x8c, "SHORT_BINUNICODE"},
                                    {0x8d, "BINUNICODE8"},
                                    {0x8e, "BINBYTES8"},
                                    {0x8f, "EMPTY_SET"},
                                    {0x90, "ADDITEMS"},
                                    {0x91, "FROZENSET"},
                                    {0x92, "NEWOBJ_EX"},
                                    {0x93, "STACK_GLOBAL"},
                                    {0x94, "MEMOIZE"},
                                    {0x95, "FRAME"},
                                    {0x96, "BYTEARRAY8"},
                                    {0x97, "NEXT_BUFFER"},
                                    {0x98, "READONLY_BUFFER"}};
  std::string text = "0x";
  text += "0123456789abcdef"[op >> 4];
  text += "0123456789abcdef"[op & 15];
  for (const Named& n : named)
    if (n.op == op) return text + " (" + n.name + ")";
  return text + " (of no name)";
}

/// The globals a pickle may name. Nothing is imported or called: each stands for what PickleReader
/// does itself.
enum class PickleGlobal : std::uint8_t {
  ordered_dict,
  rebuild_tensor,
  rebuild_typed_tensor,
  rebuild_parameter,
  storage,
  untyped_storage,
  dtype
};

/// A global and, where it is a storage type or a dtype, the dtype of its elements.
struct KnownGlobal {
  std::string_view module, name;
  PickleGlobal global;
  const char* dtype;
};

inline constexpr std::array<KnownGlobal, 24> known_globals{{
    {"collections", "OrderedDict", PickleGlobal::ordered_dict, ""},
    {"torch._utils", "_rebuild_tensor_v2", PickleGlobal::rebuild_tensor, ""},
    {"torch._utils", "_rebuild_parameter", PickleGlobal::rebuild_parameter, ""},
    {"torch", "HalfStorage", PickleGlobal::storage, "F16"},
    {"torch", "BFloat16Storage", PickleGlobal::storage, "BF16"},
    {"torch", "FloatStorage", PickleGlobal::storage, "F32"},
    {"torch", "DoubleStorage", PickleGlobal::storage, "F64"},
    {"torch", "LongStorage", PickleGlobal::storage, "I64"},
    {"torch", "IntStorage", PickleGlobal::storage, "I32"},
    {"torch", "ShortStorage", PickleGlobal::storage, "I16"},
    {"torch", "CharStorage", PickleGlobal::storage, "I8"},
    {"torch", "ByteStorage", PickleGlobal::storage, "U8"},
    {"torch", "BoolStorage", PickleGlobal::storage, "BOOL"},
    {"torch", "ComplexFloatStorage", PickleGlobal::storage, "C64"},
    // Types that came later than typed storages: bytes, and the type beside them.
    {"torch._utils", "_rebuild_tensor_v3", PickleGlobal::rebuild_typed_tensor, ""},
    {"torch.storage", "UntypedStorage", PickleGlobal::untyped_storage, "U8"},
    {"torch", "uint16", PickleGlobal::dtype, "U16"},
    {"torch", "uint32", PickleGlobal::dtype, "U32"},
    {"torch", "uint64", PickleGlobal::dtype, "U64"},
    {"torch", "float8_e4m3fn", PickleGlobal::dtype, "F8_E4M3"},
    {"torch", "float8_e5m2", PickleGlobal::dtype, "F8_E5M2"},
    {"torch", "float8_e4m3fnuz", PickleGlobal::dtype, "F8_E4M3FNUZ"},
    {"torch", "float8_e5m2fnuz", PickleGlobal::dtype, "F8_E5M2FNUZ"},
    {"torch", "float8_e8m0fnu", PickleGlobal::dtype, "F8_E8M0"},
}};

enum class PickleKind : std::uint8_t {
  none,
  boolean,
  integer,
  text,
  tuple,
  dict,
  global,
  storage,
  tensor
};

inline const char* pickle_kind_name(PickleKind kind) {
  constexpr const char* names[] = {"None",         "a boolean", "an integer", "a string", "a tuple",
                                   "a dictionary", "a global",  "a storage",  "a tensor"};
  return names[static_cast<int>(kind)];
}

/// A value: small, and without ownership, so that a stack or a memo of them costs what the opcodes
/// that filled it cost, however often one value is named.
struct PickleValue {
  PickleKind kind = PickleKind::none;
  std::uint32_t count = 0;  ///< bytes of a text, elements of a tuple
  /// The integer or boolean itself; where a text begins in the pickle; where a tuple begins among
  /// the tuples' elements; which dictionary, known global, storage or tensor.
  std::int64_t number = 0;
};

}  // namespace detail

}  // namespace pare
