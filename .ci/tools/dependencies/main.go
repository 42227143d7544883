// Command dependencies lists what the modules of the repository require, with the
// licenses, as docs/dependencies.md has it.
//
//	dependencies REPOSITORY
//
// It fails if a license is not known, or not one that users of a library under the
// Apache License may take for granted.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/licensecheck"
	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
)

const core = "github.com/m2mauth/m2mauth"

// accepted are the SPDX identifiers of licenses that ask for no more than notices.
var accepted = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0"}

// unshipped are accepted too where users get nothing of it. Most ask something of who
// passes the work on, or a changed one.
var unshipped = append([]string{"BSD-2-Clause-Views", "CC-BY-4.0", "CC0-1.0", "FTL", "MPL-2.0", "OFL-1.1"}, accepted...)

// read are the licenses of modules whose texts we read ourselves, since
// licensecheck does not know them. Another version is read again.
var read = map[string][]string{
	"github.com/AndreasBriese/bbloom@v0.0.0-20190825152654-46b345b51c96": {"CC0-1.0", "MIT"},
	"github.com/ajstarks/svgo@v0.0.0-20211024235047-1546f124cd8b":        {"CC-BY-4.0"},
	"github.com/golang/freetype@v0.0.0-20170609003504-e2365dfdc4a0":      {"FTL"}, // or the GPL, as one likes
}

// locks are npm's lock files, of the end-to-end tests.
var locks = []string{"e2e/internal/issuer/package-lock.json", "e2e/mcp/package-lock.json"}

const preface = `# Dependencies

What the modules require, at the versions of their ` + "`go.mod`" + ` files, and its licenses as
found in its source. What has a row above has no other.

Written by ` + "`go run ./.ci/tools/dependencies . > docs/dependencies.md`" + `; .ci/run compares.

## What users get

*build*: compiled into a program that imports the module (on linux/amd64); *tests*: into
the module's own tests alone; *graph*: into neither, named only so that the versions of
the rest are settled. Each of the others requires the core as well.
`

const others = `
## What only examples, tests and tools use

Nobody gets it who fetches a released module, so it may ask for more than notices: of who
passes it on, or a changed version of it. FTL is the FreeType license. Of npm's packages
the licenses are those that their lock files name.
`

func main() {
	log.SetFlags(0)
	log.SetPrefix("dependencies: ")
	if len(os.Args) != 2 {
		log.Fatal("usage: dependencies REPOSITORY")
	}
	if err := run(os.Args[1], os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(repository string, out io.Writer) error {
	released := []string{filepath.Clean(repository)}
	for _, folder := range []string{"adapters", "cmd"} {
		dirs, err := filepath.Glob(filepath.Join(repository, folder, "*"))
		if err != nil {
			return err
		}
		released = append(released, dirs...)
	}
	released = append(released, filepath.Join(repository, "revocation", "redisstore"))
	all, err := modules(repository)
	if err != nil {
		return err
	}
	written := make(map[string]bool)
	var mistakes []error
	fmt.Fprint(out, preface)
	for _, dir := range released {
		use, err := usesOf(dir)
		if err != nil {
			return err
		}
		mistakes = append(mistakes, list(dir, use, written, out))
	}
	fmt.Fprint(out, others)
	for _, dir := range all {
		if !slices.Contains(released, dir) {
			mistakes = append(mistakes, list(dir, nil, written, out))
		}
	}
	for _, lock := range locks {
		mistakes = append(mistakes, listNPM(repository, lock, out))
	}
	return errors.Join(mistakes...)
}

// modules returns the folders that have a go.mod file.
func modules(repository string) (dirs []string, err error) {
	err = filepath.WalkDir(repository, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == "go.mod" {
			dirs = append(dirs, filepath.Dir(path))
		}
		return err
	})
	return dirs, err
}

// list writes the table of the module in a folder, without the rows that were
// written for another. Without use, there is no column for what a row is used in.
func list(dir string, use func(path string) string, written map[string]bool, out io.Writer) error {
	data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return err
	}
	file, err := modfile.Parse("go.mod", data, nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n### %s\n\n| module | version | license |", file.Module.Mod.Path)
	if use == nil {
		fmt.Fprint(out, "\n|---|---|---|\n")
	} else {
		fmt.Fprint(out, " used in |\n|---|---|---|---|\n")
	}
	slices.SortFunc(file.Require, func(a, b *modfile.Require) int { return cmp.Compare(a.Mod.Path, b.Mod.Path) })
	var mistakes []error
	for _, require := range file.Require {
		mod := require.Mod
		if mod.Path == core || strings.HasPrefix(mod.Path, core+"/") || use == nil && written[mod.String()] {
			continue
		}
		source, err := download(dir, mod)
		if err != nil {
			return err
		}
		licenses, asks := read[mod.String()], accepted
		if use == nil {
			asks = unshipped
		}
		if licenses == nil {
			licenses, err = licensesOf(source)
		}
		if err = cmp.Or(err, accept(licenses, asks)); err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: %w", mod, err))
		}
		row := fmt.Sprintf("| `%s` | %s | %s |", mod.Path, mod.Version, strings.Join(licenses, ", "))
		if use != nil {
			row += " " + use(mod.Path) + " |"
		}
		if !written[row] {
			fmt.Fprintln(out, row)
		}
		written[row], written[mod.String()] = true, true
	}
	return errors.Join(mistakes...)
}

// usesOf returns a function that says what the module in a folder uses another in.
func usesOf(dir string) (func(path string) string, error) {
	public, err := importable(dir)
	if err != nil {
		return nil, err
	}
	built, err := providers(dir, public...)
	if err != nil {
		return nil, err
	}
	tested, err := providers(dir, "-test", "./...")
	return func(path string) string {
		switch {
		case built[path]:
			return "build"
		case tested[path]:
			return "tests"
		}
		return "graph"
	}, err
}

// listNPM writes the table of a lock file, which has the licenses that the packages
// name.
func listNPM(repository, path string, out io.Writer) error {
	data, err := os.ReadFile(filepath.Join(repository, filepath.FromSlash(path)))
	if err != nil {
		return err
	}
	var lock struct {
		Packages map[string]struct{ Version, License string }
	}
	if err := json.Unmarshal(data, &lock); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	fmt.Fprintf(out, "\n### %s\n\n| package | version | license |\n|---|---|---|\n", path)
	rows := make(map[string]bool) // some are there twice
	var mistakes []error
	for place, found := range lock.Packages {
		_, name, dependency := strings.Cut(place, "node_modules/")
		if !dependency {
			continue // the one that asks for them
		}
		if i := strings.LastIndex(name, "/node_modules/"); i >= 0 {
			name = name[i+len("/node_modules/"):]
		}
		rows[fmt.Sprintf("| `%s` | %s | %s |\n", name, found.Version, found.License)] = true
		if err := accept([]string{found.License}, unshipped); err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s %s: %w", name, found.Version, err))
		}
	}
	for _, row := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprint(out, row)
	}
	return errors.Join(mistakes...)
}

// importable returns the packages of a module that others can import.
func importable(dir string) ([]string, error) {
	output, err := goCommand(dir, "list", "./...")
	return slices.DeleteFunc(strings.Fields(string(output)), func(path string) bool {
		return slices.Contains(strings.Split(path, "/"), "internal")
	}), err
}

// providers returns the paths of the modules whose packages some packages import.
func providers(dir string, packages ...string) (map[string]bool, error) {
	args := append([]string{"list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}"}, packages...)
	output, err := goCommand(dir, args...)
	paths := make(map[string]bool)
	for path := range strings.FieldsSeq(string(output)) {
		paths[path] = true
	}
	return paths, err
}

// download returns the folder of a module's source.
func download(dir string, mod module.Version) (string, error) {
	output, err := goCommand(dir, "mod", "download", "-json", mod.String())
	if err != nil {
		return "", err
	}
	var downloaded struct{ Dir string }
	err = json.Unmarshal(output, &downloaded)
	return downloaded.Dir, err
}

// goCommand runs go in a module's folder as users would get the module: for one
// platform, and without the workspace, which raises versions.
func goCommand(dir string, args ...string) ([]byte, error) {
	command := exec.Command("go", args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "GOWORK=off", "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=1")
	var stderr bytes.Buffer
	command.Stderr = &stderr
	output, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s in %s: %w\n%s%s", strings.Join(args, " "), dir, err, output, &stderr)
	}
	return output, nil
}

// licensesOf finds the licenses in the files of a folder that are named for them.
func licensesOf(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	found := make(map[string]bool)
	for _, entry := range entries {
		name := strings.ToUpper(entry.Name())
		if entry.IsDir() || strings.HasSuffix(name, ".GO") || !(strings.HasPrefix(name, "LICENSE") || strings.HasPrefix(name, "LICENCE") || strings.HasPrefix(name, "COPYING")) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		coverage := licensecheck.Scan(text)
		if coverage.Percent < 75 { // a quarter of it is something else, such as a condition
			return nil, fmt.Errorf("%.0f %% of %s is the text of a license that is known", coverage.Percent, entry.Name())
		}
		for _, match := range coverage.Match {
			if !match.IsURL {
				found[match.ID] = true
			}
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no license was found")
	}
	return slices.Sorted(maps.Keys(found)), nil
}

func accept(licenses, accepted []string) error {
	for _, id := range licenses {
		if !slices.Contains(accepted, id) {
			return fmt.Errorf("the license %s is not one of %s", id, strings.Join(accepted, ", "))
		}
	}
	return nil
}
