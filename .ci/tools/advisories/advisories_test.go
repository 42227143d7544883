// Package advisories tests what we say about published advisories: the database
// that govulncheck is given, .ci/vulndb, and the OpenVEX document in .vex that
// tells scanners what came out.
package advisories

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openvex/go-vex/pkg/vex"
	"golang.org/x/mod/modfile"
)

const (
	root     = "../../.."
	database = root + "/.ci/vulndb"
	document = root + "/.vex/m2mauth.openvex.json"
	product  = "pkg:golang/github.com/m2mauth/m2mauth"
)

// advisory is what govulncheck reads of a record (https://go.dev/security/vuln/database).
type advisory struct {
	ID       string    `json:"id"`
	Modified time.Time `json:"modified"`
	Affected []struct {
		Package struct {
			Name string `json:"name"`
		} `json:"package"`
		Specific struct {
			Imports []struct {
				Path    string   `json:"path"`
				Symbols []string `json:"symbols"`
			} `json:"imports"`
		} `json:"ecosystem_specific"`
	} `json:"affected"`
}

func advisories(t *testing.T) (all []advisory) {
	t.Helper()
	files, err := filepath.Glob(database + "/ID/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no record in %s (%v)", database, err)
	}
	for _, file := range files {
		var a advisory
		read(t, file, &a)
		if a.ID+".json" != filepath.Base(file) {
			t.Errorf("%s has the ID %s", file, a.ID)
		}
		all = append(all, a)
	}
	return all
}

func read(t *testing.T, file string, v any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// required returns the version of a module that the core requires.
func required(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(root + "/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	file, err := modfile.Parse("go.mod", data, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, require := range file.Require {
		if require.Mod.Path == path {
			return require.Mod.Version
		}
	}
	t.Fatalf("the core does not require %s: its advisories can go", path)
	return ""
}

// govulncheck looks a module up in the index alone.
func TestTheIndexNamesEveryRecord(t *testing.T) {
	t.Parallel()
	var index []struct {
		Path  string `json:"path"`
		Vulns []struct {
			ID       string    `json:"id"`
			Modified time.Time `json:"modified"`
		} `json:"vulns"`
	}
	read(t, database+"/index/modules.json", &index)
	var whole struct {
		Modified time.Time `json:"modified"`
	}
	read(t, database+"/index/db.json", &whole)

	indexed := make(map[string]time.Time)
	for _, module := range index {
		for _, vuln := range module.Vulns {
			indexed[module.Path+" "+vuln.ID] = vuln.Modified
		}
	}
	records := 0
	for _, a := range advisories(t) {
		for _, affected := range a.Affected {
			records++
			if !indexed[affected.Package.Name+" "+a.ID].Equal(a.Modified) {
				t.Errorf("index/modules.json lacks %s for %s, modified %v", a.ID, affected.Package.Name, a.Modified)
			}
		}
		if whole.Modified.Before(a.Modified) {
			t.Errorf("index/db.json is older than %s", a.ID)
		}
	}
	if records != len(indexed) {
		t.Errorf("index/modules.json has %d records, ID has %d", len(indexed), records)
	}
}

// A symbol that does not exist is one that nothing calls.
func TestTheSymbolsOfEveryRecordExist(t *testing.T) {
	t.Parallel()
	for _, a := range advisories(t) {
		for _, affected := range a.Affected {
			path := affected.Package.Name
			command := exec.Command("go", "mod", "download", "-json", path+"@"+required(t, path))
			command.Dir = root
			command.Env = append(os.Environ(), "GOWORK=off")
			output, err := command.Output()
			if err != nil {
				t.Fatal(err)
			}
			var module struct{ Dir string }
			if err := json.Unmarshal(output, &module); err != nil {
				t.Fatal(err)
			}
			for _, imports := range affected.Specific.Imports {
				if len(imports.Symbols) == 0 {
					t.Errorf("%s names no symbol of %s", a.ID, imports.Path)
				}
				have := methods(t, filepath.Join(module.Dir, strings.TrimPrefix(imports.Path, path)))
				for _, symbol := range imports.Symbols {
					if !slices.Contains(have, symbol) {
						t.Errorf("%s has no %s, which %s names", imports.Path, symbol, a.ID)
					}
				}
			}
		}
	}
}

// methods returns the methods of a package as Type.Method.
func methods(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no Go file in %s (%v)", dir, err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range file.Decls {
			f, isFunc := declaration.(*ast.FuncDecl)
			if !isFunc || f.Recv == nil {
				continue
			}
			receiver := f.Recv.List[0].Type
			if pointer, isPointer := receiver.(*ast.StarExpr); isPointer {
				receiver = pointer.X
			}
			if identifier, isPlain := receiver.(*ast.Ident); isPlain {
				names = append(names, identifier.Name+"."+f.Name.Name)
			}
		}
	}
	return names
}

// What a scanner asks of the document: does it say of this product, with the
// version of the module that is built in, what became of this advisory?
func TestScannersFindEveryAdvisoryJudged(t *testing.T) {
	t.Parallel()
	if _, err := fs.Stat(os.DirFS(root), ".vex/m2mauth.openvex.json"); err != nil {
		t.Fatal(err) // crawlers look into .vex for names that end so
	}
	judged, err := vex.Open(document)
	if err != nil {
		t.Fatal(err)
	}
	if judged.ID == "" || judged.Author == "" || judged.Timestamp == nil || judged.Version < 1 {
		t.Error("the document lacks what OpenVEX requires: @id, author, timestamp, version")
	}
	known := 0
	for _, a := range advisories(t) {
		for _, affected := range a.Affected {
			path := affected.Package.Name
			module := "pkg:golang/" + path + "@" + required(t, path)
			for _, ours := range []string{product, product + "@v0.1.0"} {
				statements := judged.Matches(a.ID, ours, []string{module})
				if len(statements) != 1 {
					t.Fatalf("%d statements about %s in %s, of %s", len(statements), a.ID, module, ours)
				}
				if statements[0].Status != vex.StatusNotAffected || statements[0].Justification != vex.VulnerableCodeNotInExecutePath {
					t.Errorf("%s: %s %s is not what govulncheck holds", a.ID, statements[0].Status, statements[0].Justification)
				}
			}
			if others := judged.Matches(a.ID, product, []string{"pkg:golang/" + path + "@v2.0.0"}); len(others) != 0 {
				t.Errorf("%s was not judged for other versions of %s", a.ID, path)
			}
			known++
		}
	}
	if len(judged.Statements) != known {
		t.Errorf("the document has %d statements, %s %d records", len(judged.Statements), database, known)
	}
	for _, statement := range judged.Statements {
		if err := statement.Validate(); err != nil {
			t.Errorf("%s: %v", statement.Vulnerability.Name, err)
		}
	}
}
