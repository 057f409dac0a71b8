// The table of kernels: by name, called with pointers to their arguments, as the driver's cuLaunchKernel does.
#pragma once
#include <utility>
#include "machine.h"

// `kernels.rs` has the same structure.
struct Entry {
  const char* name;
  const char* parameters;  // a letter for each: address, int, float
  u32 threads;             // at most so many a block
  void (*run)(Machine*, void* const* arguments);
  const Entry* next;
};
static const Entry* entries = nullptr;
struct Registered : Entry {
  Registered(const char* name, const char* parameters, u32 threads, void (*run)(Machine*, void* const*))
    : Entry{name, parameters, threads, run, entries} { entries = this; }
};

template <class A> struct Letter;
template <class A> struct Letter<A*> { static constexpr char letter = 'a'; };
template <> struct Letter<u64> { static constexpr char letter = 'a'; };
template <> struct Letter<int> { static constexpr char letter = 'i'; };
template <> struct Letter<u32> { static constexpr char letter = 'i'; };
template <> struct Letter<float> { static constexpr char letter = 'f'; };
template <class... A> struct Letters { static constexpr char letters[] = {Letter<A>::letter..., 0}; };
template <class... A> constexpr const char* parameters_of(void (*)(A...)) { return Letters<A...>::letters; }

template <class... A, unsigned long... I>
static void call(void (*kernel)(A...), void* const* arguments, std::integer_sequence<unsigned long, I...>) {
  kernel(*(A*)arguments[I]...);
}
template <class... A> static void call(void (*kernel)(A...), void* const* arguments) {
  call(kernel, arguments, std::make_integer_sequence<unsigned long, sizeof...(A)>{});
}

#define KERNEL(threads, blocks, name) static constexpr u32 threads_of_##name = threads; static void name
#define ENTRY(name) \
  static const Registered entry_of_##name(#name, parameters_of(name), threads_of_##name, \
    [](Machine* of_this_thread, void* const* arguments) { machine = of_this_thread; call(name, arguments); });

extern "C" __attribute__((visibility("default"))) const Entry* cokv_emulator_entries() { return entries; }
