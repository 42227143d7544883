package grpcauth

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"google.golang.org/grpc/peer"
)

type brokenAddr struct{}

func (brokenAddr) Network() string { panic("broken") }
func (brokenAddr) String() string  { panic("broken") }

func TestAnAddressThatPanicsIsEmpty(t *testing.T) {
	t.Parallel()
	r := &request{ctx: peer.NewContext(t.Context(), &peer.Peer{Addr: brokenAddr{}})}
	assert.Empty(t, r.RemoteAddr())
	r.message, r.values = "message", func(string, any, string) string { panic("a user's mistake") }
	assert.Panics(t, func() { r.PathValue("org") }, "what is not the library's goes on")
}
