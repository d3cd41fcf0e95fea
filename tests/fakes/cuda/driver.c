/* What torch asks of CUDA's runtime and driver before it believes in a GPU; everything succeeds, nothing is done.
   The other functions of the runtime stay NVIDIA's own. */
#include <stddef.h>
#include <string.h>
#include "driver_types.h" /* of NVIDIA's wheel for the runtime */
#define SUCCEEDS(name) int name(void) { return 0; }
#define SETS(name, value) int name(int *out) { *out = value; return 0; }
#define MAKES(name) int name(void **out) { static size_t next = 16; *out = (void *)next++; return 0; }

SETS(cudaGetDeviceCount, 1)
SETS(cudaGetDevice, 0)
SETS(cudaDriverGetVersion, 13000)
SETS(cudaRuntimeGetVersion, 13000)
SETS(cuDeviceGetCount, 1)
SETS(cuDriverGetVersion, 13000)
MAKES(cudaStreamCreateWithPriority)
MAKES(cudaEventCreate)
MAKES(cudaEventCreateWithFlags)
SUCCEEDS(cudaSetDevice)
SUCCEEDS(cudaGetLastError)
SUCCEEDS(cudaPeekAtLastError)
SUCCEEDS(cudaStreamQuery)
SUCCEEDS(cudaStreamSynchronize)
SUCCEEDS(cudaStreamWaitEvent)
SUCCEEDS(cudaDeviceSynchronize)
SUCCEEDS(cudaEventRecord)
SUCCEEDS(cudaEventRecordWithFlags)
SUCCEEDS(cudaEventDestroy)
SUCCEEDS(cudaEventQuery)
SUCCEEDS(cudaEventSynchronize)
SUCCEEDS(cuInit)

int cudaGetDeviceProperties(struct cudaDeviceProp *of, int device) {
  memset(of, 0, sizeof *of);
  strcpy(of->name, "no GPU at all");
  of->major = 9;
  of->warpSize = 32;
  of->multiProcessorCount = 132;
  of->maxThreadsPerBlock = 1024;
  of->maxThreadsPerMultiProcessor = 2048;
  of->sharedMemPerBlock = 48 << 10;
  of->totalGlobalMem = 80ull << 30;
  return 0;
}

int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return 0; }
int cudaStreamIsCapturing(void *stream, int *status) { *status = 0; return 0; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 9 : attribute != 76; return 0; }
int cudaGetDriverEntryPoint(const char *symbol, void **function, unsigned long long flags, void *result) { *function = 0; return 0; }
int cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version, unsigned long long flags, void *result) { *function = 0; return 0; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 0; return 0; }
