// Command dependencies lists the modules that our released modules require, with
// their licenses, as docs/dependencies.md has it.
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

const preface = `# Dependencies

What the released modules require, at the versions of their ` + "`go.mod`" + ` files, and its
licenses as found in its source. *build*: compiled into a program that imports the
module (on linux/amd64); *tests*: into the module's own tests alone; *graph*: into
neither, named only so that the versions of the rest are settled. An adapter
requires the core as well; what has a row above has no other.

Written by ` + "`go run ./.ci/tools/dependencies . > docs/dependencies.md`" + `; .ci/run compares.
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
	dirs, err := filepath.Glob(filepath.Join(repository, "adapters", "*"))
	if err != nil {
		return err
	}
	fmt.Fprint(out, preface)
	written := make(map[string]bool)
	mistakes := []error{list(repository, written, out)}
	for _, dir := range dirs {
		mistakes = append(mistakes, list(dir, written, out))
	}
	return errors.Join(mistakes...)
}

// list writes the table of the module in a folder, without the rows that were
// written for another, which are the core's for every adapter.
func list(dir string, written map[string]bool, out io.Writer) error {
	data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return err
	}
	file, err := modfile.Parse("go.mod", data, nil)
	if err != nil {
		return err
	}
	public, err := importable(dir)
	if err != nil {
		return err
	}
	built, err := providers(dir, public...)
	if err != nil {
		return err
	}
	tested, err := providers(dir, "-test", "./...")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n## %s\n\n| module | version | license | used in |\n|---|---|---|---|\n", file.Module.Mod.Path)
	slices.SortFunc(file.Require, func(a, b *modfile.Require) int { return cmp.Compare(a.Mod.Path, b.Mod.Path) })
	var mistakes []error
	for _, require := range file.Require {
		if require.Mod.Path == core {
			continue // and what it requires, as the preface says
		}
		source, err := download(dir, require.Mod)
		if err != nil {
			return err
		}
		licenses, err := licensesOf(source)
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: %w", require.Mod, err))
		}
		use := "graph"
		switch {
		case built[require.Mod.Path]:
			use = "build"
		case tested[require.Mod.Path]:
			use = "tests"
		}
		row := fmt.Sprintf("| `%s` | %s | %s | %s |\n", require.Mod.Path, require.Mod.Version, strings.Join(licenses, ", "), use)
		if !written[row] {
			fmt.Fprint(out, row)
		}
		written[row] = true
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
		if entry.IsDir() || !(strings.HasPrefix(name, "LICENSE") || strings.HasPrefix(name, "LICENCE") || strings.HasPrefix(name, "COPYING")) {
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
	ids := slices.Sorted(maps.Keys(found))
	for _, id := range ids {
		if !slices.Contains(accepted, id) {
			return ids, fmt.Errorf("the license %s is not one of %s", id, strings.Join(accepted, ", "))
		}
	}
	return ids, nil
}
