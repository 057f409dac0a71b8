// The machine as its scheduler shows it to the one thread that runs (`machine.rs` has the same structure).
#pragma once
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum Whom : u32 { ALL_OF_THE_WARP = 0, ALL_OF_THE_BLOCK = 1 };

struct Machine {
  u32 thread, threads, block, block_y;  // the thread that runs
  u8* shared;                           // memory of its block
  u64 shared_bytes;
  u8* exchange;                         // where its warp exchanges numbers until it next waits for all of the warp
  void (*wait)(Machine*, u32 whom, const char* file, u32 line);
  // Ends the launch; does not return.
  void (*fault)(Machine*, const char* what, const void* address);
  // Whether all of it is memory that was allocated.
  bool (*is_allocated)(Machine*, const void* address, u64 bytes);
  void (*copy)(Machine*, void* to, const void* from);
  void (*commit_copies)(Machine*);
  void (*wait_for_copies)(Machine*, u32 pending);
};
static thread_local Machine* machine;

// Default arguments are evaluated where a function is called: a kernel's line.
#define CALLER const char* file = __builtin_FILE(), u32 line = __builtin_LINE()

static inline void fault(const char* what, const void* address) { machine->fault(machine, what, address); }
static inline void check_global(const void* address, u64 bytes, const char* misaligned, const char* outside) {
  if ((u64)address % bytes) fault(misaligned, address);
  if (!machine->is_allocated(machine, address, bytes)) fault(outside, address);
}
static inline void check_shared(const void* address, const char* misaligned, const char* outside) {
  const u64 at = (u64)address - (u64)machine->shared;
  if ((u64)address % 16) fault(misaligned, address);
  if (at > machine->shared_bytes || machine->shared_bytes - at < 16) fault(outside, address);
}
