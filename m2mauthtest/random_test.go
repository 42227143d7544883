package m2mauthtest_test

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// Go's generator of FIPS 140 mode cannot be seeded in a bubble, and it is seeded
// anew for each that reads at the same time, and after a garbage collection.
func TestKeysAndTokensAreMadeInABubbleInFIPSMode(t *testing.T) {
	t.Parallel()
	if !fips140.Enabled() {
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		again.Env = append(os.Environ(), "GODEBUG=fips140=on")
		output, err := again.CombinedOutput()
		require.NoError(t, err, "%s", output)
		return
	}
	synctest.Test(t, func(t *testing.T) {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				issuer := m2mauthtest.NewIssuer()
				for _, alg := range []string{"ES256", "ES512", "PS256", "EdDSA"} {
					runtime.GC()
					runtime.GC() // what a pool keeps, it keeps for one
					issuer.Rotate(alg)
					assert.NotEmpty(t, issuer.Token("https://api.test"))
				}
				assert.NotEmpty(t, issuer.AddApp("worker").Secret)
			})
		}
		all.Wait()
	})
}
