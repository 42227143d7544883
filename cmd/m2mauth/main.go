// Command m2mauth finds out why an API refuses tokens. See docs/doctor.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// commands are the command line. Each command is a struct in a file of its own, whose
// fields are its flags and whose Run gets the environment.
//
// Kong reads it, since the declaration is the help text, it is released regularly, and
// it brings no other module along.
type commands struct {
	Doctor doctorCommand `cmd:"" help:"Find out what is wrong between an API, its issuer and a token."`
	Decode decodeCommand `cmd:"" help:"Show what a token from standard input says."`
	Issuer issuerCommand `cmd:"" help:"Run an issuer for local work."`
	Revoke revokeCommand `cmd:"" help:"Take tokens back."`
	List   listCommand   `cmd:"" help:"Show what is revoked."`
	Undo   undoCommand   `cmd:"" help:"End an entry of the list of what is revoked."`
	Init   initCommand   `cmd:"" help:"Set up a new store for the list of what is revoked."`
}

const description = `Tools for APIs that validate access tokens with m2mauth.

Exit status: 0 if all is well, 1 if something is wrong or was refused, 2 if the command was called wrongly.`

// environment is what a command may use of the process, so that tests can replace it.
type environment struct {
	context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(name string) string
}

// errFound ends a command with status 1 that has said itself what it found.
var errFound = errors.New("something is wrong")

// usageError is a mistake in the call of a command, which ends with status 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv)
	stop()
	os.Exit(status)
}

// ended is what kong ends the process with, such as after --help.
type ended int

// run is the program. It returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) (status int) {
	defer func() {
		if e := recover(); e != nil {
			early, ok := e.(ended)
			if !ok {
				panic(e)
			}
			status = int(early)
		}
	}()
	parser, err := kong.New(new(commands),
		kong.Name("m2mauth"), kong.Description(description), kong.Vars{"kinds": kindNames(), "redis_password_variable": redisPasswordVariable},
		kong.Writers(stdout, stderr), kong.Exit(func(code int) { panic(ended(code)) }),
	)
	if err != nil {
		panic(err) // the declaration is wrong, and so every call
	}
	called, err := parser.Parse(args)
	if err != nil {
		text := err.Error()
		for _, arg := range args {
			if strings.HasPrefix(arg, "-") {
				_, arg, _ = strings.Cut(arg, "=")
			}
			if len(arg) >= 24 {
				text = strings.ReplaceAll(text, arg, "(not repeated here, since it may be secret: tokens are read from standard input)")
			}
		}
		fmt.Fprintf(stderr, "m2mauth: %s; m2mauth --help shows what there is\n", printable(text))
		return 2
	}
	err = called.Run(&environment{ctx, stdin, stdout, stderr, getenv})
	if err == nil {
		return 0
	}
	if !errors.Is(err, errFound) {
		fmt.Fprintf(stderr, "m2mauth: %s\n", printable(strings.TrimPrefix(err.Error(), "m2mauth: ")))
	}
	if _, wrong := errors.AsType[usageError](err); wrong {
		return 2
	}
	return 1
}
