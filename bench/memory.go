package bench

import (
	"context"
	"runtime"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// Memory returns the bytes that n distinct good tokens leave on the heap of a
// guard with the default CacheBytes. The tokens are EdDSA's, which are the
// quickest to make; what is remembered is as large as of an ES384 token.
func Memory(n int) (int64, error) {
	issuer := m2mauthtest.NewIssuer()
	issuer.Rotate("EdDSA")
	guard, err := m2mauth.New(issuer.Config(audience))
	if err != nil {
		return 0, err
	}
	ctx := context.Background()
	if err := guard.Warm(ctx); err != nil {
		return 0, err
	}
	before := heap()
	for n > 0 {
		batch := sign(issuer, min(n, 4096), func(int) m2mauthtest.Token {
			return m2mauthtest.Token{Audience: audience, Scopes: []string{scope, "write:products"}}
		})
		for _, token := range batch {
			if _, err := guard.Verify(ctx, token); err != nil {
				return 0, err
			}
		}
		n -= len(batch)
	}
	after := heap()
	runtime.KeepAlive(guard)
	return after - before, nil
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // what the first put into finalizers and pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
