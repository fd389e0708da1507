// Empty: libFuzzer's main calls LLVMFuzzerTestOneInput of FuzzEntry.
