// Tells PyTorch without CUDA that there is one CUDA device, which has nothing to do: enough for autograd and streams.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

constexpr auto CUDA = c10::DeviceType::CUDA;

struct IdleGuard final : c10::impl::NoOpDeviceGuardImpl<CUDA> {
  c10::Device getDevice() const override { return {CUDA, 0}; }
  c10::Device exchangeDevice(c10::Device) const override { return {CUDA, 0}; }
  c10::Stream getStream(c10::Device device) const noexcept override { return idle(device); }
  c10::Stream getDefaultStream(c10::Device device) const override { return idle(device); }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return idle(stream.device()); }

 private:
  static c10::Stream idle(c10::Device device) { return c10::Stream(c10::Stream::DEFAULT, device); }
};

struct OneDevice final : at::CUDAHooksInterface {
  explicit OneDevice(at::CUDAHooksArgs) {}
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  int getNumGPUs() const override { return 1; }
  c10::DeviceIndex current_device() const override { return 0; }
};

IdleGuard guard;
const bool registered = (c10::impl::registerDeviceGuard(CUDA, &guard), true);

}  // namespace

namespace at {
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, OneDevice)
}
