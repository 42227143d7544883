package m2mauth

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTwoHundredCharactersAreLoggedWhole(t *testing.T) {
	t.Parallel()
	whole := strings.Repeat("a", 200)
	assert.Equal(t, whole, loggable(whole))
	assert.Equal(t, whole+"...", loggable(whole+"b"))
}
