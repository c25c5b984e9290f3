# libzeroshard_cuda13.so: host code by the C++ compiler, kernels by nvcc, cudart static, one exported name.
# Everything else of CUDA (cuBLASLt, NCCL) is found on the user's machine at run time.
find_program(ZS_NVCC nvcc PATHS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
set(reason "")
if(NOT ZS_NVCC)
  set(reason "nvcc is not found (looked in PATH, CUDA_HOME and /usr/local/cuda)")
else()
  execute_process(COMMAND ${ZS_NVCC} --version OUTPUT_VARIABLE version ERROR_VARIABLE version)
  if(NOT version MATCHES "release ([0-9]+)\\.([0-9]+)" OR CMAKE_MATCH_1 LESS 13)
    set(reason "${ZS_NVCC} is release ${CMAKE_MATCH_1}.${CMAKE_MATCH_2}, 13.0 or newer is needed")
  endif()
endif()
if(reason)
  if(ZS_CUDA STREQUAL "ON")
    message(FATAL_ERROR "CUDA backend: ${reason}")
  endif()
  message(STATUS "No CUDA backend: ${reason}")
  return()
endif()

set(CMAKE_CUDA_COMPILER ${ZS_NVCC})
set(CMAKE_CUDA_ARCHITECTURES OFF)
enable_language(CUDA)
# CMake 3.25 does not know that nvcc 13 has it.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
find_package(CUDAToolkit 13 REQUIRED)

file(GLOB_RECURSE CUDA_HOST CONFIGURE_DEPENDS native/backend/cuda/*.cpp)
file(GLOB_RECURSE CUDA_KERNELS CONFIGURE_DEPENDS native/backend/cuda/*.cu)
add_library(zeroshard_cuda13 SHARED ${CUDA_HOST} ${CUDA_KERNELS})
set_target_properties(zeroshard_cuda13 PROPERTIES
  CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static LINKER_LANGUAGE CXX
  BUILD_RPATH "" INSTALL_RPATH "")
target_include_directories(zeroshard_cuda13 SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})

set(codes "")
foreach(arch ${ZS_CUDA_ARCHS})
  list(APPEND codes "SHELL:-gencode arch=compute_${arch},code=sm_${arch}")
  set(last ${arch})
endforeach()
list(APPEND codes "SHELL:-gencode arch=compute_${last},code=compute_${last}")
target_compile_options(zeroshard_cuda13 PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:
  ${codes} -t 2 --expt-relaxed-constexpr --compress-mode=size
  -Xcompiler=-fvisibility=hidden>)
target_link_libraries(zeroshard_cuda13 PRIVATE CUDA::cudart_static Threads::Threads ${CMAKE_DL_LIBS})
target_link_options(zeroshard_cuda13 PRIVATE -static-libstdc++ -Wl,--gc-sections -Wl,--strip-all
  -Wl,--version-script=${CMAKE_SOURCE_DIR}/native/backend/cuda/exports.map -Wl,--no-undefined)
set_property(TARGET zeroshard_cuda13 APPEND PROPERTY LINK_DEPENDS ${CMAKE_SOURCE_DIR}/native/backend/cuda/exports.map)
