package redisstore_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/test/redisserver"
	"github.com/m2mauth/m2mauth/revocation/redisstore"
)

// What it costs that an entry outlives the power of Redis's machine, on the disk of the
// folder for temporary files: one at a time, 16 at a time, and 500 at once.
func BenchmarkAppend(b *testing.B) {
	record := bytes.Repeat([]byte("x"), 300)
	for _, fsync := range []string{"always", "everysec", "no"} {
		store := newStore(b, redisstore.Config{Address: redisserver.Start(b, "--appendfsync", fsync).Addr})
		b.Run(fsync+"/one by one", func(b *testing.B) {
			for b.Loop() {
				require.NoError(b, store.Append(b.Context(), record))
			}
		})
		b.Run(fsync+"/16 at a time", func(b *testing.B) {
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					require.NoError(b, store.Append(b.Context(), record))
				}
			})
		})
		b.Run(fsync+"/500 at once", func(b *testing.B) {
			records := make([][]byte, 500)
			for i := range records {
				records[i] = record
			}
			for b.Loop() {
				require.NoError(b, store.Append(b.Context(), records...))
			}
		})
	}
}

// How long a replica reads that starts, 100,000 entries with an entry's usual size.
func BenchmarkReadAll(b *testing.B) {
	store := newStore(b, redisstore.Config{Address: redisserver.Start(b, "--appendfsync", "no").Addr})
	records := make([][]byte, 500)
	for i := range records {
		records[i] = bytes.Repeat([]byte("x"), 300)
	}
	for range 200 {
		require.NoError(b, store.Append(b.Context(), records...))
	}
	for b.Loop() {
		got, _ := all(b, store, "")
		require.Len(b, got, 100_000)
	}
}
