# Compiles one snippet with PARE_MISUSE defined, which must fail: its first error must hold the message
# that misuses.json gives, the output the note that it may give, and no other message of ours may
# follow. NAME=twins compiles all snippets as they should be written, which must succeed. A failing
# snippet takes less than five seconds; processor time grows where cores are shared, so that a
# compiler is ended after eight.
#   cmake -DNAME=<snippet>|twins -DCOMPILER=<c++> -DTWINS=<file with all> -DINCLUDES=<folders>
#         -P check.cmake
cmake_minimum_required(VERSION 3.22)
set(here ${CMAKE_CURRENT_LIST_DIR})
set(flags -std=c++20 -fsyntax-only)
foreach(folder IN LISTS INCLUDES)
  list(APPEND flags -I${folder})
endforeach()
function(compile result output)
  execute_process(COMMAND sh -c "ulimit -t ${seconds}; exec \"$@\"" sh
                          ${COMPILER} ${flags} ${ARGN}
                  RESULT_VARIABLE code OUTPUT_VARIABLE text ERROR_VARIABLE text)
  set(${result} "${code}" PARENT_SCOPE)
  set(${output} "${text}" PARENT_SCOPE)
endfunction()

if(NAME STREQUAL "twins")
  set(seconds 60)
  compile(result output ${TWINS})
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "the right way does not compile:\n${output}")
  endif()
  return()
endif()

file(READ ${here}/misuses.json table)
string(JSON count LENGTH "${table}")
math(EXPR last "${count} - 1")
foreach(i RANGE ${last})
  string(JSON name GET "${table}" ${i} name)
  if(name STREQUAL NAME)
    string(JSON message GET "${table}" ${i} message)
    string(JSON note ERROR_VARIABLE none GET "${table}" ${i} note)
  endif()
endforeach()

set(seconds 8)
compile(result output -DPARE_MISUSE ${here}/${NAME}.cpp)
if(result EQUAL 0)
  message(FATAL_ERROR "compiled, expected: ${message}")
endif()
string(REGEX MATCH "error: [^\n]*" first "${output}")
string(FIND "${first}" "${message}" at)
if(at EQUAL -1)
  message(FATAL_ERROR "expected the first error to hold: ${message}\n${output}")
endif()
if(NOT none)
  string(FIND "${output}" "${note}" at)
  if(at EQUAL -1)
    message(FATAL_ERROR "expected the output to hold: ${note}\n${output}")
  endif()
endif()
string(REPLACE ";" "," listable "${output}")
string(REGEX MATCHALL "error: [^\n]*pare: [^\n]*" ours "${listable}")
list(LENGTH ours errors)
if(NOT errors EQUAL 1)
  message(FATAL_ERROR "expected one message of ours, got ${errors}:\n${output}")
endif()
