import CThinkCompress
import TestSupport
import Testing
import ThinkCompress

/// Null pointers are named by the argument that they are.
@Suite struct NullPointerTests {
    @Test("in the place of handles and of what is read")
    func nullPointers() throws {
        var handle: OpaquePointer?
        expect(tc_recipe_parse(nil, &handle), is: TC_INVALID_ARGUMENT, says: "text is NULL")
        expect(tc_recipe_parse("f16", nil), is: TC_INVALID_ARGUMENT, says: "recipe is NULL")
        expect(
            tc_compressor_create(nil, nil, 1, 1, TC_FLOAT16, nil, &handle),
            is: TC_INVALID_ARGUMENT,
            says: "recipe is NULL"
        )
        let recipe = try Owned.recipe("exact")
        expect(
            tc_compressor_create(recipe.pointer, nil, 1, 1, TC_FLOAT16, nil, &handle),
            is: TC_INVALID_ARGUMENT,
            says: "layers is NULL"
        )
        expect(tc_compressor_add_layer(nil, nil, nil), is: TC_INVALID_ARGUMENT, says: "compressor is NULL")
        expect(
            tc_compressor_finish(nil, nil, nil, 0, nil, &handle),
            is: TC_INVALID_ARGUMENT,
            says: "compressor is NULL"
        )
        expect(tc_cache_get_info(nil, nil), is: TC_INVALID_ARGUMENT, says: "cache is NULL")
        expect(tc_cache_append(nil, nil, 0, 0, nil), is: TC_INVALID_ARGUMENT, says: "cache is NULL")
        expect(tc_cache_drop_rows(nil, 0, 0), is: TC_INVALID_ARGUMENT, says: "cache is NULL")
        expect(tc_cache_truncate(nil, 0), is: TC_INVALID_ARGUMENT, says: "cache is NULL")
        expect(tc_cache_fork(nil, &handle), is: TC_INVALID_ARGUMENT, says: "cache is NULL")
        expect(tc_cache_get_layer(nil, 0, nil, nil), is: TC_INVALID_ARGUMENT, says: "cache is NULL")
        expect(tc_cache_get_token_ids(nil, nil, 0), is: TC_INVALID_ARGUMENT, says: "cache is NULL")
        expect(tc_workers_create(1, nil), is: TC_INVALID_ARGUMENT, says: "workers is NULL")
        expect(
            tc_snapshot_check_model(nil, nil, 0, TC_FLOAT16, nil, 0),
            is: TC_INVALID_ARGUMENT,
            says: "snapshot is NULL"
        )
        expect(tc_snapshot_get_token_ids(nil, nil, 0), is: TC_INVALID_ARGUMENT, says: "snapshot is NULL")
        expect(tc_cache_restore(nil, 0, 0, 0, nil, nil, nil), is: TC_INVALID_ARGUMENT, says: "cache is NULL")
        expect(tc_cache_attend(nil, 0, nil, 0, 0, nil, nil, nil, 0), is: TC_INVALID_ARGUMENT, says: "cache is NULL")
        expect(tc_cache_save(nil, nil, nil, nil), is: TC_INVALID_ARGUMENT, says: "cache is NULL")
        expect(tc_snapshot_open(nil, &handle), is: TC_INVALID_ARGUMENT, says: "path is NULL")
        expect(tc_snapshot_verify(nil, nil), is: TC_INVALID_ARGUMENT, says: "snapshot is NULL")
        expect(tc_snapshot_load(nil, 0, nil, &handle), is: TC_INVALID_ARGUMENT, says: "snapshot is NULL")
        #expect(tc_recipe_text(nil) == nil && tc_snapshot_metadata(nil, nil) == nil)
        #expect(tc_recipe_advice(nil) == nil && tc_snapshot_recipe(nil) == nil && tc_snapshot_metadata_count(nil) == 0)
        expect(tc_recipe_get_info(nil, nil), is: TC_INVALID_ARGUMENT, says: "recipe is NULL")
        expect(tc_recipe_get_info(recipe.pointer, nil), is: TC_INVALID_ARGUMENT, says: "info is NULL")
        expect(tc_profile_open(nil, nil, 0, &handle), is: TC_INVALID_ARGUMENT, says: "path is NULL")
        expect(
            tc_recipe_estimate_bits(nil, nil, 0, TC_FLOAT16, nil, nil),
            is: TC_INVALID_ARGUMENT,
            says: "recipe is NULL"
        )
        expect(tc_cache_measure_errors(nil, 0, nil, 0, nil, nil), is: TC_INVALID_ARGUMENT, says: "cache is NULL")
        expect(tc_snapshot_get_info(nil, nil), is: TC_INVALID_ARGUMENT, says: "snapshot is NULL")
        expect(tc_snapshot_get_layer(nil, 0, nil), is: TC_INVALID_ARGUMENT, says: "snapshot is NULL")
        expect(tc_snapshot_get_digests(nil, nil, 0), is: TC_INVALID_ARGUMENT, says: "snapshot is NULL")
        expect(tc_snapshot_get_metadata(nil, 0, nil), is: TC_INVALID_ARGUMENT, says: "snapshot is NULL")
        expect(
            tc_prefix_digests(nil, 1, TC_FLOAT16, nil, 0, nil, 0, nil, 0),
            is: TC_INVALID_ARGUMENT,
            says: "layers is NULL"
        )
        tc_recipe_free(nil)
        tc_compressor_free(nil)
        tc_cache_free(nil)
        tc_snapshot_free(nil)
        tc_workers_free(nil)
        tc_profile_free(nil)
    }

    @Test("beside a good handle")
    func nullResults() throws {
        let cache = try Owned.cache(TestCache.small(), recipe: "kivi(bits=2)")
        var shape = tc_layer_shape()
        var tensor = tc_tensor()
        var layer = tc_layer()
        layer.size = MemoryLayout<tc_layer>.size
        var errors = tc_errors()
        errors.size = MemoryLayout<tc_errors>.size
        expect(tc_cache_get_info(cache.pointer, nil), is: TC_INVALID_ARGUMENT, says: "info is NULL")
        expect(tc_cache_get_layer(cache.pointer, 0, nil, nil), is: TC_INVALID_ARGUMENT, says: "shape is NULL")
        expect(tc_cache_get_layer(cache.pointer, 0, &shape, nil), is: TC_INVALID_ARGUMENT, says: "rows is NULL")
        expect(tc_cache_get_token_ids(cache.pointer, nil, 300), is: TC_INVALID_ARGUMENT, says: "token_ids is NULL")
        expect(tc_cache_append(cache.pointer, nil, 2, 1, nil), is: TC_INVALID_ARGUMENT, says: "layers is NULL")
        expect(
            tc_cache_attend(cache.pointer, 0, nil, 4, 1, nil, nil, nil, 0),
            is: TC_INVALID_ARGUMENT,
            says: "queries is NULL"
        )
        expect(
            tc_cache_attend(cache.pointer, 0, &tensor, 4, 1, nil, nil, nil, 0),
            is: TC_INVALID_ARGUMENT,
            says: "output is NULL"
        )
        expect(
            tc_cache_measure_errors(cache.pointer, 0, nil, 0, nil, &errors),
            is: TC_INVALID_ARGUMENT,
            says: "original is NULL"
        )
        expect(
            tc_cache_measure_errors(cache.pointer, 0, &layer, 0, nil, nil),
            is: TC_INVALID_ARGUMENT,
            says: "errors is NULL"
        )
        expect(tc_cache_save(cache.pointer, nil, nil, nil), is: TC_INVALID_ARGUMENT, says: "path is NULL")
        let recipe = try Owned.recipe("exact")
        shape = tc_layer_shape(query_heads: 0, kv_heads: 1, key_dimension: 8, value_dimension: 8)
        expect(
            tc_recipe_estimate_bits(recipe.pointer, &shape, 9, TC_FLOAT16, nil, nil),
            is: TC_INVALID_ARGUMENT,
            says: "bits_per_value is NULL"
        )
        let folder = try TemporaryFolder()
        try check(tc_cache_save(cache.pointer, folder.file("a.tkv"), nil, nil))
        let snapshot = try Owned.snapshot(folder.file("a.tkv"))
        expect(tc_snapshot_get_info(snapshot.pointer, nil), is: TC_INVALID_ARGUMENT, says: "info is NULL")
        expect(tc_snapshot_get_layer(snapshot.pointer, 0, nil), is: TC_INVALID_ARGUMENT, says: "shape is NULL")
        expect(tc_snapshot_get_metadata(snapshot.pointer, 0, nil), is: TC_INVALID_ARGUMENT, says: "entry is NULL")
        expect(tc_snapshot_load(snapshot.pointer, 0, nil, nil), is: TC_INVALID_ARGUMENT, says: "cache is NULL")
    }
}
