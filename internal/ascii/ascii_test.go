package ascii

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestLowerLeavesTheRest(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "az09-ſİ\u212a\xff", Lower("AZ09-ſİ\u212a\xff"))
	assert.Equal(t, "@abyz[`az{", Lower("@ABYZ[`az{"), "the neighbours of letters")
}

// Every byte, alone and at each end, is judged as the RFCs' grammar judges it.
func TestSetsOfCharacters(t *testing.T) {
	t.Parallel()
	token := regexp.MustCompile("^[!#$%&'*+\\-.^_`|~0-9A-Za-z]+$")
	token68 := regexp.MustCompile(`^[A-Za-z0-9\-._~+/]+=*$`)
	for c := range 256 {
		char := string([]byte{byte(c)})
		for _, s := range []string{char, "a" + char, char + "a", "a" + char + "a"} {
			assert.Equal(t, token.MatchString(s), IsToken(s), "%q", s)
			assert.Equal(t, token68.MatchString(s), IsToken68(s), "%q", s)
		}
	}
	for s, want := range map[string]bool{"": false, "=": false, "==": false, "a=": true, "a==": true, "a=b": false, "=a": false, "a b": false} {
		assert.Equal(t, want, IsToken68(s), "%q", s)
	}
	assert.False(t, IsToken(""))
}

func TestTokenSpan(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int{"": 0, " a": 0, "Bearer x": 6, "Bearer": 6, "Bearer,x": 6, "Bé": 1, strings.Repeat("a", 300): 300} {
		assert.Equal(t, want, TokenSpan(s), "%q", s)
	}
}
