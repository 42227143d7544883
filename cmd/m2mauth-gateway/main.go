package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"

	"github.com/alecthomas/kong"
)

// commands are the command line. Kong reads it, as that of the command m2mauth.
type commands struct {
	LogLevel  string `help:"What is logged: debug, info, warn or error." enum:"debug,info,warn,error" default:"info" env:"M2MAUTH_GATEWAY_LOG_LEVEL"`
	LogFormat string `help:"How it is logged: text or json." enum:"text,json" default:"text" env:"M2MAUTH_GATEWAY_LOG_FORMAT"`

	Serve    serveCommand    `cmd:"" default:"withargs" help:"Answer proxies, and follow the file. This is what happens without a command."`
	Validate validateCommand `cmd:"" help:"Find every mistake in the file, without a network."`
	Explain  explainCommand  `cmd:"" help:"Say which row decides about a request, and why."`
}

type serveCommand struct {
	File string `arg:"" help:"The configuration, in YAML." env:"M2MAUTH_GATEWAY_FILE"`
}

type validateCommand struct {
	File string `arg:"" help:"The configuration, in YAML." env:"M2MAUTH_GATEWAY_FILE"`
}

const description = `Decides about requests for nginx, Traefik, Caddy and Envoy. See docs/gateway.md.

Exit status: 0 if all is well, 1 if the file has mistakes or the gateway refuses the request, 2 if the command was called wrongly or the file cannot be read.`

// environment is what a command may use of the process, so that tests can replace it.
type environment struct {
	context.Context
	stdout, stderr io.Writer
	environ        func() []string
}

// errFound ends a command with status 1 that has said itself what it found.
var errFound = errors.New("something is wrong")

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr, os.Environ))
}

// ended is what kong ends the process with, such as after --help.
type ended int

// run is the program. It returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, environ func() []string) (status int) {
	defer func() {
		if e := recover(); e != nil {
			early, ok := e.(ended)
			if !ok {
				panic(e)
			}
			status = int(early)
		}
	}()
	c := new(commands)
	parser, err := kong.New(c, kong.Name("m2mauth-gateway"), kong.Description(description),
		kong.Writers(stdout, stderr), kong.Exit(func(code int) { panic(ended(code)) }))
	if err != nil {
		panic(err) // the declaration is wrong, and so every call
	}
	called, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "m2mauth-gateway: %v; m2mauth-gateway --help shows what there is\n", err)
		return 2
	}
	err = called.Run(&environment{ctx, stdout, stderr, environ}, c)
	if err == nil {
		return 0
	}
	if !errors.Is(err, errFound) {
		fmt.Fprintf(stderr, "m2mauth-gateway: %v\n", err)
	}
	if _, unreadable := errors.AsType[*os.PathError](err); unreadable {
		return 2
	}
	return 1
}

// logger is that of the flags.
func (c *commands) logger(to io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // kong has checked it
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(to, options))
	}
	return slog.New(slog.NewTextHandler(to, options))
}

// Run serves.
func (c *serveCommand) Run(e *environment, all *commands) error {
	slog.SetDefault(all.logger(e.stderr))
	defer runtime.KeepAlive(newReserve(e.environ()))
	f := &follower{file: c.File, environ: e.environ, gateway: &gateway{metrics: newMetrics()}}
	if err := f.start(e); err != nil {
		if _, wrong := errors.AsType[mistakes](err); wrong {
			fmt.Fprintln(e.stderr, err)
			return errFound
		}
		return err
	}
	return f.serve(e)
}

// Run validates.
func (c *validateCommand) Run(e *environment) error {
	g, err := examine(c.File, e.environ(), nil, nil)
	if _, wrong := errors.AsType[mistakes](err); wrong {
		fmt.Fprintln(e.stderr, err)
		return errFound
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "%s: no mistake; issuers: %d, rows: %d\n", c.File, len(g.issuers), len(g.rules))
	return nil
}
