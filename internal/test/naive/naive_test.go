package naive

import (
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A judge that shared code with the accused would share its mistakes.
func TestTheJudgeHasTheStandardLibraryAlone(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "naive.go", nil, parser.ImportsOnly)
	require.NoError(t, err)
	assert.NotEmpty(t, file.Imports)
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		require.NoError(t, err)
		assert.NotContains(t, strings.Split(path, "/")[0], ".", path)
	}
}

func TestStrict(t *testing.T) {
	t.Parallel()
	for _, data := range []string{`{}`, ` [1,{"a":"\ud83d\ude00\\ud800"}] `, `{"a":1,"A":2}`, strings.Repeat("[", 32) + strings.Repeat("]", 32)} {
		assert.NoError(t, Strict([]byte(data)), data)
	}
	for _, data := range []string{
		``, `{}{}`, `{"a":1,"a":1}`, `[{"a":1,"\u0061":1}]`, "\"\xff\"", `"\ud83d"`, `"\ude00"`, `"\ud83d\u0061"`, `"\ud83d\ud83d\ude00"`, `[1,]`,
		strings.Repeat("[", 33) + strings.Repeat("]", 33),
	} {
		assert.Error(t, Strict([]byte(data)), data)
	}
}
