package fiber2auth

import (
	"bytes"
	"errors"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What knows fasthttp and not fiber is written twice, since the two adapters are modules
// of which neither may require the other's fiber: a mend of one is due in both.
func TestWhatKnowsFasthttpAloneIsThatOfFiberauth(t *testing.T) {
	t.Parallel()
	theirs, err := declarations("../fiberauth/fiberauth.go")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("this is not the repository:", err)
	}
	require.NoError(t, err)
	ours, err := declarations("fiber2auth.go")
	require.NoError(t, err)
	for _, name := range []string{"received", "rawFields", "answer", "answer.Header", "answer.WriteHeader", "answer.Write", "orEmpty"} {
		require.NotEmpty(t, theirs[name], name)
		assert.Equal(t, theirs[name], ours[name], name)
	}
}

// declarations returns the source of a file's functions and types by their names,
// methods as answer.Write.
func declarations(file string) (map[string]string, error) {
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, file, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	found := make(map[string]string)
	for _, declaration := range parsed.Decls {
		name := ""
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			name = d.Name.Name
			if d.Recv != nil {
				name = receiver(d.Recv.List[0].Type) + "." + name
			}
			d.Doc = nil // the words may differ
		case *ast.GenDecl:
			if spec, ok := d.Specs[0].(*ast.TypeSpec); ok {
				name = spec.Name.Name
			}
			d.Doc = nil
		}
		var source bytes.Buffer
		if err := printer.Fprint(&source, files, declaration); err != nil {
			return nil, err
		}
		found[name] = source.String()
	}
	return found, nil
}

func receiver(of ast.Expr) string {
	if pointer, ok := of.(*ast.StarExpr); ok {
		of = pointer.X
	}
	return of.(*ast.Ident).Name
}
