// Replaces zarrita, which reads Zarr from the network and uses WebAssembly: the page does not need it.
export {};
