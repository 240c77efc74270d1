// A program that a signal ends takes its temporary files and folders with it.
#pragma once

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <system_error>

#include "pare/storage/temporary.hpp"

namespace tool {

namespace detail {

inline sem_t stop_wanted;
inline std::atomic<int> stop_signal{0};  // the first that came
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may touch no other");

extern "C" inline void want_stop(int signal) {
  const int error = errno;
  int none = 0;
  stop_signal.compare_exchange_strong(none, signal);
  ::sem_post(&stop_wanted);
  errno = error;
}

extern "C" inline void* clean_up_and_stop(void*) {
  while (::sem_wait(&stop_wanted) != 0) {
  }
  pare::remove_temporaries();
  const int signal = stop_signal;
  ::signal(signal, SIG_DFL);
  sigset_t only;
  ::sigemptyset(&only);
  ::sigaddset(&only, signal);
  ::pthread_sigmask(SIG_UNBLOCK, &only, nullptr);
  ::raise(signal);
  return nullptr;
}

}  // namespace detail

/// From now on SIGINT, SIGTERM, SIGHUP, SIGPIPE and their like remove the temporaries, and then end
/// the program as they do by default. Signals that are ignored, as under nohup, stay ignored.
inline void clean_up_on_signals() {
  ::signal(SIGXFSZ, SIG_IGN);  // a limit on files is an error like a full disk
  ::sem_init(&detail::stop_wanted, 0, 0);
  // A handler may do next to nothing, so a thread does it. It needs little of the memory that a
  // limit may leave to the program.
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  ::pthread_attr_setstacksize(&attributes, std::size_t{512} << 10);
  pthread_t thread;
  const int error = ::pthread_create(&thread, &attributes, detail::clean_up_and_stop, nullptr);
  ::pthread_attr_destroy(&attributes);
  if (error != 0)
    throw std::runtime_error("cannot start a thread: " + std::generic_category().message(error));
  for (const int signal :
       {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT, SIGXCPU, SIGALRM, SIGUSR1, SIGUSR2}) {
    struct sigaction before {};
    ::sigaction(signal, nullptr, &before);
    if (before.sa_handler != SIG_DFL) continue;
    struct sigaction action {};
    action.sa_handler = detail::want_stop;
    action.sa_flags = SA_RESTART;
    ::sigemptyset(&action.sa_mask);
    ::sigaction(signal, &action, nullptr);
  }
}

/// Returns unless a signal is ending the program: files vanish then, and that is no error to
/// report.
inline void wait_if_stopped() {
  while (detail::stop_signal != 0) ::pause();
}

/// Opens what the program was started without: otherwise a file that is opened later would take the
/// number of the standard output, and what is printed would go into it. Reading and writing fail.
inline void require_standard_descriptors() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(descriptor, F_GETFD) < 0)
      ::open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY);  // the lowest free one
}

}  // namespace tool
