package soak

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// figures are what the system says of a process at one time.
type figures struct {
	at          time.Time
	descriptors int
	threads     int
	resident    int           // KiB
	cpu         time.Duration // since its start
}

// watched is a process that is looked at. Only Linux has /proc.
type watched struct {
	pid     int
	samples []figures
}

// watch finds the process that runs the program, but for one that is known.
func watch(t *testing.T, program string, but ...*watched) *watched {
	t.Helper()
	if runtime.GOOS != "linux" {
		return nil
	}
	program, err := filepath.EvalSymlinks(program)
	require.NoError(t, err)
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	require.NoError(t, err)
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != program {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(link, "/")[2])
		require.NoError(t, err)
		if !slices.ContainsFunc(but, func(w *watched) bool { return w.pid == pid }) {
			return &watched{pid: pid}
		}
	}
	require.Fail(t, "no process runs "+program)
	return nil
}

// look takes the figures as they are now.
func (w *watched) look() (figures, error) {
	proc := fmt.Sprintf("/proc/%d/", w.pid)
	f := figures{at: time.Now()}
	descriptors, err := os.ReadDir(proc + "fd")
	if err != nil {
		return f, err
	}
	f.descriptors = len(descriptors)
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		return f, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		number := strings.TrimSuffix(strings.TrimSpace(value), " kB")
		switch name {
		case "VmRSS":
			f.resident, err = strconv.Atoi(number)
		case "Threads":
			f.threads, err = strconv.Atoi(number)
		}
		if err != nil {
			return f, err
		}
	}
	stat, err := os.ReadFile(proc + "stat")
	if err != nil {
		return f, err
	}
	// The name may hold spaces and ends with a parenthesis. utime and stime are
	// fields 14 and 15, in hundredths of a second.
	after := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	for _, field := range after[11:13] {
		ticks, err := strconv.Atoi(string(field))
		if err != nil {
			return f, err
		}
		f.cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	return f, nil
}

// sockets counts the open descriptors that are sockets.
func (w *watched) sockets(t *testing.T) (n int) {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", w.pid))
	require.NoError(t, err)
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

// sample takes the figures four times a second until done is closed.
func (w *watched) sample(done <-chan struct{}) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		f, err := w.look()
		if err != nil {
			return err
		}
		w.samples = append(w.samples, f)
		select {
		case <-done:
			return nil
		case <-tick.C:
		}
	}
}

// third is what the figures were in a third of the run.
type third struct {
	descriptors, resident        int // medians: a flood is short
	mostDescriptors, mostThreads int
	mostResident                 int
	cpu                          time.Duration
}

// between sums the samples of a time up.
func (w *watched) between(from, to time.Time) (x third, ok bool) {
	var descriptors, resident []int
	var first, last figures
	for _, f := range w.samples {
		if f.at.Before(from) || f.at.After(to) {
			continue
		}
		if descriptors == nil {
			first = f
		}
		last = f
		descriptors, resident = append(descriptors, f.descriptors), append(resident, f.resident)
		x.mostThreads = max(x.mostThreads, f.threads)
	}
	if len(descriptors) == 0 {
		return x, false
	}
	slices.Sort(descriptors)
	slices.Sort(resident)
	x.descriptors, x.mostDescriptors = descriptors[len(descriptors)/2], descriptors[len(descriptors)-1]
	x.resident, x.mostResident = resident[len(resident)/2], resident[len(resident)-1]
	x.cpu = last.cpu - first.cpu
	return x, true
}

func (x third) String() string {
	return fmt.Sprintf("descriptors %d (most %d), threads at most %d, resident %d MiB (most %d), CPU %.1f s",
		x.descriptors, x.mostDescriptors, x.mostThreads, x.resident>>10, x.mostResident>>10, x.cpu.Seconds())
}
