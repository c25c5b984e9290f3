// A driver without devices, under the name libcuda.so.1: what cuDNN needs of one to make plans for a card that is not
// there. Code that it compiles is "loaded" here and thrown away; all else answers that there is no device.
#define ZS_EXPORT extern "C" __attribute__((visibility("default")))

namespace {
constexpr int kNoDevice = 100;  // CUDA_ERROR_NO_DEVICE
int anything = 0;
}  // namespace

#define ZS_MAKES(name) \
  ZS_EXPORT int name(void **made) { return *made = &anything, 0; }
#define ZS_TELLS(name) \
  ZS_EXPORT int name(int *value) { return *value = 0; }
#define ZS_DOES(name) \
  ZS_EXPORT int name() { return 0; }
#define ZS_REFUSES(name) \
  ZS_EXPORT int name() { return kNoDevice; }

ZS_MAKES(cuLibraryLoadData) ZS_MAKES(cuLibraryLoadFromFile) ZS_MAKES(cuLibraryGetKernel)
ZS_MAKES(cuModuleLoadData) ZS_MAKES(cuModuleLoadDataEx) ZS_MAKES(cuModuleLoadFatBinary) ZS_MAKES(cuModuleGetFunction)
ZS_TELLS(cuFuncGetAttribute) ZS_TELLS(cuKernelGetAttribute)
ZS_DOES(cuLibraryUnload) ZS_DOES(cuModuleUnload) ZS_DOES(cuFuncSetAttribute) ZS_DOES(cuKernelSetAttribute)
ZS_REFUSES(cuCtxGetCurrent) ZS_REFUSES(cuCtxGetDevice) ZS_REFUSES(cuCtxGetLimit) ZS_REFUSES(cuCtxPopCurrent)
ZS_REFUSES(cuCtxPushCurrent) ZS_REFUSES(cuDeviceGet) ZS_REFUSES(cuDeviceGetAttribute) ZS_REFUSES(cuDeviceGetCount)
ZS_REFUSES(cuDevicePrimaryCtxRelease) ZS_REFUSES(cuDevicePrimaryCtxReset) ZS_REFUSES(cuDevicePrimaryCtxRetain)
ZS_REFUSES(cuDriverGetVersion) ZS_REFUSES(cuGetErrorName) ZS_REFUSES(cuGetErrorString) ZS_REFUSES(cuInit)
ZS_REFUSES(cuLaunchCooperativeKernel) ZS_REFUSES(cuLaunchKernel) ZS_REFUSES(cuLaunchKernelEx)
ZS_REFUSES(cuLinkAddData) ZS_REFUSES(cuLinkAddData_v2) ZS_REFUSES(cuLinkAddFile_v2) ZS_REFUSES(cuLinkComplete)
ZS_REFUSES(cuLinkCreate) ZS_REFUSES(cuLinkCreate_v2) ZS_REFUSES(cuLinkDestroy) ZS_REFUSES(cuMemcpyDtoH_v2)
ZS_REFUSES(cuModuleGetGlobal_v2) ZS_REFUSES(cuOccupancyMaxActiveBlocksPerMultiprocessor)
ZS_REFUSES(cuOccupancyMaxPotentialClusterSize) ZS_REFUSES(cuStreamGetCtx) ZS_REFUSES(cuStreamSynchronize)
ZS_REFUSES(cuTensorMapEncodeTiled)
