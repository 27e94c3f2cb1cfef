// In the place of zarrita, which reads Zarr from the network and brings WebAssembly: no study comes that way.
export {};
