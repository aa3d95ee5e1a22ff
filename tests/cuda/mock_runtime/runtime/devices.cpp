// Errors, devices, kernels that are not there, and the driver.
#include <cxxabi.h>
#include <dlfcn.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "state.h"

using namespace mock_runtime;

namespace {

thread_local std::string missing_kernel;

cudaError_t launch_missing(const void* kernel) {
  const Lock lock(runtime().mutex);
  const auto found = runtime().kernels.find(kernel);
  const char* name = found == runtime().kernels.end() ? "?" : found->second;
  if (std::strstr(name, "spin_kernel") != nullptr) {
    return cudaSuccess;  // torch.cuda._sleep: streams are as slow as can be anyway
  }
  char* readable = abi::__cxa_demangle(name, nullptr, nullptr, nullptr);
  missing_kernel = std::string("no such kernel in the mock CUDA runtime: ") +
                   std::string(readable != nullptr ? readable : name).substr(0, 400);
  std::free(readable);
  return fail(cudaErrorInvalidDeviceFunction);
}

}  // namespace

extern "C" {

// Errors and versions.

cudaError_t cudaGetLastError() {
  return std::exchange(last_error, cudaSuccess);
}
cudaError_t cudaPeekAtLastError() {
  return last_error;
}
const char* cudaGetErrorString(cudaError_t error) {
  using Function = const char* (*)(cudaError_t);
  static const auto real = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "cudaGetErrorString"));
  return error == cudaErrorInvalidDeviceFunction ? missing_kernel.c_str() : real(error);
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(
    const char* symbol,
    void** function,
    unsigned,
    unsigned long long,
    cudaDriverEntryPointQueryResult* result) {
  *function = dlsym(RTLD_DEFAULT, symbol);
  const bool found = *function != nullptr;
  if (result != nullptr) {
    *result = found ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  }
  return cudaSuccess;
}

// Devices.

cudaError_t cudaGetDeviceCount(int* count) {
  *count = kDevices;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= kDevices) {
    return fail(cudaErrorInvalidDevice);
  }
  current_device = device;
  const Lock lock(runtime().mutex);
  runtime().in_use[device] = true;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  *properties = {};
  std::snprintf(properties->name, sizeof(properties->name), "mock CUDA device");
  properties->uuid.bytes[0] = static_cast<char>(device + 1);
  properties->pciBusID = device + 1;
  properties->major = 9;
  properties->totalGlobalMem = kMemory;
  properties->multiProcessorCount = 4;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->regsPerBlock = properties->regsPerMultiprocessor = 65536;
  properties->sharedMemPerBlock = 48 << 10;
  properties->sharedMemPerBlockOptin = properties->sharedMemPerMultiprocessor = 227 << 10;
  properties->l2CacheSize = 1 << 20;
  properties->memoryBusWidth = 64;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9 : 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = *greatest = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  return finish_all(current_device);
}

// Kernels of torch.

cudaError_t cudaLaunchKernel(const void* kernel, dim3, dim3, void**, size_t, cudaStream_t) {
  return launch_missing(kernel);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void* kernel, void**) {
  return launch_missing(kernel);
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3, dim3, void**, size_t, cudaStream_t) {
  return launch_missing(kernel);
}
void __cudaRegisterFunction(
    void**,
    const char* function,
    char*,
    const char* name,
    int,
    uint3*,
    uint3*,
    dim3*,
    dim3*,
    int*) {
  const Lock lock(runtime().mutex);
  runtime().kernels[function] = name;
}

// The driver, as far as torch asks it, and what its library of driver functions links to.

int cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active) {
  const Lock lock(runtime().mutex);
  *flags = 0;
  *active = runtime().in_use[device];
  return 0;
}

#define NOT_SUPPORTED(name) \
  int name() {              \
    return 801;             \
  }
// Told that there is none to subscribe to, torch's profiler does without CUPTI, which would crash
// where only this much of a driver is.
NOT_SUPPORTED(cuptiGetVersion)
NOT_SUPPORTED(cuptiSubscribe)
int cuptiGetResultString(int, const char** text) {
  *text = "CUPTI is not there";
  return 0;
}
NOT_SUPPORTED(cuCtxGetCurrent)
NOT_SUPPORTED(cuCtxSetCurrent)
NOT_SUPPORTED(cuDeviceGet)
NOT_SUPPORTED(cuDeviceGetAttribute)
NOT_SUPPORTED(cuDevicePrimaryCtxRetain)
NOT_SUPPORTED(cuFuncGetAttribute)
NOT_SUPPORTED(cuFuncSetAttribute)
NOT_SUPPORTED(cuFuncSetCacheConfig)
NOT_SUPPORTED(cuGetErrorString)
NOT_SUPPORTED(cuLaunchCooperativeKernel)
NOT_SUPPORTED(cuLaunchKernel)
NOT_SUPPORTED(cuLinkAddData_v2)
NOT_SUPPORTED(cuLinkComplete)
NOT_SUPPORTED(cuLinkCreate_v2)
NOT_SUPPORTED(cuModuleGetFunction)
NOT_SUPPORTED(cuModuleLoad)
NOT_SUPPORTED(cuModuleLoadData)
NOT_SUPPORTED(cuModuleLoadDataEx)
NOT_SUPPORTED(cuModuleUnload)
NOT_SUPPORTED(cuOccupancyMaxActiveBlocksPerMultiprocessor)
NOT_SUPPORTED(cuPointerGetAttribute)
NOT_SUPPORTED(cuTensorMapEncodeTiled)

}  // extern "C"
