// Package process starts the programs of the end-to-end tests, and lets none of
// them outlive its test, however that ends.
package process

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// startTimeout bounds how long a program may take until it answers.
const startTimeout = 3 * time.Minute

// stopTimeout is what a program has between SIGTERM and SIGKILL.
const stopTimeout = 15 * time.Second

// supervised, in the environment, makes a test binary the supervisor of one program.
const supervised = "E2E_SUPERVISED"

// Main is to be called by TestMain of every package that uses Start. It runs the
// tests; or, in a process that Start has started, the program.
func Main(m *testing.M) {
	if os.Getenv(supervised) != "" {
		os.Exit(supervise(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// supervise runs a program until it ends by itself or stdin does. Stdin is a pipe
// that the test holds, and that the system closes even if the test is killed.
func supervise(command []string) int {
	os.Unsetenv(supervised)
	// Ctrl-C reaches this process, the program and the test. This one has to stay,
	// to see the program end.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		defer stop()
		io.Copy(io.Discard, os.Stdin)
	}()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	err := cmd.Start()
	if err == nil {
		kill := make(chan os.Signal, 1)
		signal.Notify(kill, syscall.SIGUSR1)
		go func() {
			<-kill
			cmd.Process.Kill()
		}()
		err = cmd.Wait()
	}
	if cmd.ProcessState == nil {
		io.WriteString(os.Stderr, err.Error()+"\n")
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// required reports whether a test must not be skipped: in .ci/run.
func required() bool { return os.Getenv("E2E") == "required" }

// Skip skips the test, since the machine lacks something; or fails it where
// nothing may be skipped.
func Skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if required() {
		t.Fatalf("not to be skipped (E2E=required), but "+format, args...)
	}
	t.Skipf(format, args...)
}

// Need skips the test if one of the programs is not installed.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			Skip(t, "%s is not installed", program)
		}
	}
}

// Process is a program that runs or has run.
type Process struct {
	name  string
	cmd   *exec.Cmd // the supervisor
	stdin io.Closer
	done  chan struct{} // closed when the program has ended

	mu     sync.Mutex // guards the fields below
	output bytes.Buffer
}

// Start starts cmd, whose Stdin, Stdout and Stderr it sets. The program is
// stopped at the end of the test; if that has failed, its output is shown.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	require.NoError(t, cmd.Err)
	self, err := os.Executable()
	require.NoError(t, err)
	p := &Process{name: cmd.Args[0], cmd: cmd, done: make(chan struct{})}
	cmd.Args = append([]string{self, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = self
	cmd.Env = append(cmd.Environ(), supervised+"=1")
	cmd.Stdout, cmd.Stderr = p, p
	p.stdin, err = cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	go func() {
		defer close(p.done)
		cmd.Wait()
	}()
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("%s, exit status %d, said:\n%s", p.name, p.ExitCode(), p.Output())
		}
	})
	return p
}

// Run runs cmd to its end and returns what it wrote to stdout and stderr. It
// reports false if the program failed or took longer than timeout.
func Run(t testing.TB, timeout time.Duration, cmd *exec.Cmd) (output string, ok bool) {
	t.Helper()
	p := Start(t, cmd)
	select {
	case <-p.done:
	case <-time.After(timeout):
		p.Stop()
		return p.Output() + "\n(stopped after " + timeout.String() + ")", false
	}
	return p.Output(), p.ExitCode() == 0
}

// Write appends to the output.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(b)
}

// Output returns what the program has written so far to stdout and stderr.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// Stop stops the program, as a service manager would, and waits for its end.
func (p *Process) Stop() {
	p.stdin.Close()
	<-p.done
}

// Kill ends the program by SIGKILL, which it cannot notice.
func (p *Process) Kill() {
	p.cmd.Process.Signal(syscall.SIGUSR1)
	<-p.done
}

// Running reports whether the program has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ExitCode returns the exit status of a program that has ended; -1 if a signal
// ended it.
func (p *Process) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Ready waits until the program answers a GET request for url with 200.
func (p *Process) Ready(t testing.TB, url string) {
	t.Helper()
	client := http.Client{Timeout: 20 * time.Second}
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		require.True(t, p.Running(), "%s has ended", p.name)
		response, err := client.Get(url)
		if err != nil {
			continue
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return
		}
	}
	require.Fail(t, "no answer", "%s did not answer %s within %v", p.name, url, startTimeout)
}

// FreeAddresses returns n different addresses on which nothing listens. Their ports are
// below those that the system gives to connections, which would take one before the
// program that it was chosen for; redis-server's tests use those below and above.
func FreeAddresses(t testing.TB, n int) []string {
	t.Helper()
	addresses := make([]string, 0, n)
	for range 1000 {
		if len(addresses) == n {
			return addresses
		}
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(23_000+rand.IntN(7_000))))
		if err != nil {
			continue
		}
		defer listener.Close() // not before all are chosen, or one could come twice
		addresses = append(addresses, listener.Addr().String())
	}
	require.Fail(t, "no ports are free")
	return nil
}
