# Compiles one snippet. With MESSAGE the compiler must fail and its first error must hold it;
# without, it must succeed.
separate_arguments(includes UNIX_COMMAND "${INCLUDES}")
execute_process(COMMAND ${COMPILER} -std=c++20 -fsyntax-only ${includes} ${SOURCE}
                RESULT_VARIABLE result ERROR_VARIABLE output OUTPUT_VARIABLE output)
if(NOT DEFINED MESSAGE)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "the twin does not compile:\n${output}")
  endif()
  return()
endif()
if(result EQUAL 0)
  message(FATAL_ERROR "compiled, expected: ${MESSAGE}")
endif()
string(REGEX MATCH "error: [^\n]*" first "${output}")
string(FIND "${first}" "${MESSAGE}" at)
if(at EQUAL -1)
  message(FATAL_ERROR "expected the first error to hold: ${MESSAGE}\n${output}")
endif()
