// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * A TSM provider for tests: it passes each request for a report to a process.
 *
 * configfs-tsm is empty on a machine that is neither a TDX nor an SEV-SNP
 * guest. This driver takes the place of the hardware's: it has the same name,
 * the same attributes and the same errors, and a process that has opened
 * /dev/tsm-test plays the part of the hardware.
 *
 * read(2) waits for a request and returns one struct tsm_test_request; poll(2)
 * works. write(2) takes one struct tsm_test_answer that is followed by the
 * bytes of outblob and of auxblob, in one call; ESTALE: that request has timed
 * out or has been interrupted.
 *
 * Parameters, on the command line and in /sys/module/tsm_test/parameters:
 *
 *   tsm_test.provider=sev_guest|tdx_guest|none
 *   tsm_test.timeout_ms=N
 *
 * Invariant: an answer belongs to the request whose number it has, or to none.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/tsm.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

/*
 * Both drivers of hardware refuse any other length (SNP_REPORT_USER_DATA_SIZE,
 * TDX_REPORTDATA_LEN).
 */
#define INBLOB_LEN TSM_INBLOB_MAX

/* As long as the TDX driver waits for a quote (getquote_timeout). */
#define DEFAULT_TIMEOUT_MS 30000

static char *provider = "sev_guest";
module_param(provider, charp, 0444);
MODULE_PARM_DESC(provider, "sev_guest, tdx_guest, or none");

static unsigned int timeout_ms = DEFAULT_TIMEOUT_MS;
module_param(timeout_ms, uint, 0644);
MODULE_PARM_DESC(timeout_ms, "how long a request waits for its answer");

/**
 * struct tsm_test_request - what a read returns
 * @id: the number of the request, from 1
 * @privlevel: the last value written to the attribute, or 0
 * @inblob_len: length of @inblob, always 64
 * @inblob: the bytes to be covered by the report
 */
struct tsm_test_request {
	u64 id;
	u32 privlevel;
	u32 inblob_len;
	u8 inblob[INBLOB_LEN];
};

/**
 * struct tsm_test_answer - the head of what is written
 * @id: the number of the request
 * @error: the positive error number with which it fails, or 0
 * @outblob_len: bytes of outblob that follow
 * @auxblob_len: bytes of auxblob that follow those
 * @reserved: 0
 */
struct tsm_test_answer {
	u64 id;
	u32 error;
	u32 outblob_len;
	u32 auxblob_len;
	u32 reserved;
};

enum tsm_test_state {
	/* There is no request. */
	STATE_IDLE,
	/* A request has not been read. */
	STATE_ASKED,
	/* It has been read and has no answer. */
	STATE_READ,
	/* It has an answer. */
	STATE_ANSWERED,
};

/* The only request: the TSM core lets one process at a time into report_new. */
static struct {
	enum tsm_test_state state;
	struct tsm_test_request request;
	struct tsm_test_answer answer;
	u8 *outblob;
	u8 *auxblob;
} current_request;

/* Protects current_request. A change of its state wakes the queue. */
static DEFINE_MUTEX(request_lock);
static DECLARE_WAIT_QUEUE_HEAD(request_queue);

static void set_state(enum tsm_test_state state)
{
	lockdep_assert_held(&request_lock);
	WRITE_ONCE(current_request.state, state);
	wake_up_all(&request_queue);
}

static bool has_state(enum tsm_test_state state)
{
	return READ_ONCE(current_request.state) == state;
}

static void ask(const struct tsm_desc *desc)
{
	struct tsm_test_request *request = &current_request.request;

	guard(mutex)(&request_lock);
	request->id++;
	request->privlevel = desc->privlevel;
	request->inblob_len = desc->inblob_len;
	memcpy(request->inblob, desc->inblob, desc->inblob_len);
	set_state(STATE_ASKED);
}

/* Hands the answer's blobs to the report, which frees them. */
static int take_answer(struct tsm_report *report)
{
	int rc = -(int)current_request.answer.error;

	lockdep_assert_held(&request_lock);
	if (rc) {
		kvfree(current_request.outblob);
		kvfree(current_request.auxblob);
	} else {
		report->outblob = current_request.outblob;
		report->outblob_len = current_request.answer.outblob_len;
		report->auxblob = current_request.auxblob;
		report->auxblob_len = current_request.answer.auxblob_len;
	}
	current_request.outblob = NULL;
	current_request.auxblob = NULL;
	return rc;
}

static int tsm_test_report_new(struct tsm_report *report, void *data)
{
	long left;
	int rc;

	if (report->desc.inblob_len != INBLOB_LEN)
		return -EINVAL;

	ask(&report->desc);
	left = wait_event_interruptible_timeout(request_queue, has_state(STATE_ANSWERED),
						msecs_to_jiffies(timeout_ms));

	guard(mutex)(&request_lock);
	if (has_state(STATE_ANSWERED))
		rc = take_answer(report);
	else
		rc = left < 0 ? -EINTR : -ETIMEDOUT;
	set_state(STATE_IDLE);
	return rc;
}

static ssize_t tsm_test_read(struct file *file, char __user *buf, size_t count,
			     loff_t *ppos)
{
	const size_t len = sizeof(current_request.request);
	int rc;

	if (count < len)
		return -EINVAL;

	for (;;) {
		scoped_guard(mutex, &request_lock) {
			if (has_state(STATE_ASKED)) {
				if (copy_to_user(buf, &current_request.request, len))
					return -EFAULT;
				set_state(STATE_READ);
				return len;
			}
		}
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		rc = wait_event_interruptible(request_queue, has_state(STATE_ASKED));
		if (rc)
			return rc;
	}
}

static int check_answer(const struct tsm_test_answer *answer, size_t count)
{
	if (answer->error > MAX_ERRNO || answer->reserved)
		return -EINVAL;
	if (answer->outblob_len > TSM_OUTBLOB_MAX ||
	    answer->auxblob_len > TSM_OUTBLOB_MAX)
		return -EFBIG;
	if (count != sizeof(*answer) + answer->outblob_len + answer->auxblob_len)
		return -EINVAL;
	return 0;
}

static ssize_t tsm_test_write(struct file *file, const char __user *buf,
			      size_t count, loff_t *ppos)
{
	u8 *outblob __free(kvfree) = NULL;
	u8 *auxblob __free(kvfree) = NULL;
	struct tsm_test_answer answer;
	int rc;

	if (count < sizeof(answer))
		return -EINVAL;
	if (copy_from_user(&answer, buf, sizeof(answer)))
		return -EFAULT;
	rc = check_answer(&answer, count);
	if (rc)
		return rc;

	buf += sizeof(answer);
	outblob = vmemdup_user(buf, answer.outblob_len);
	if (IS_ERR(outblob))
		return PTR_ERR(outblob);
	auxblob = vmemdup_user(buf + answer.outblob_len, answer.auxblob_len);
	if (IS_ERR(auxblob))
		return PTR_ERR(auxblob);

	guard(mutex)(&request_lock);
	if (!has_state(STATE_READ) || answer.id != current_request.request.id)
		return -ESTALE;
	current_request.answer = answer;
	current_request.outblob = no_free_ptr(outblob);
	current_request.auxblob = no_free_ptr(auxblob);
	set_state(STATE_ANSWERED);
	return count;
}

static __poll_t tsm_test_poll(struct file *file, poll_table *wait)
{
	__poll_t mask = EPOLLOUT | EPOLLWRNORM;

	poll_wait(file, &request_queue, wait);
	if (has_state(STATE_ASKED))
		mask |= EPOLLIN | EPOLLRDNORM;
	return mask;
}

static const struct file_operations tsm_test_fops = {
	.owner = THIS_MODULE,
	.open = nonseekable_open,
	.read = tsm_test_read,
	.write = tsm_test_write,
	.poll = tsm_test_poll,
};

static struct miscdevice tsm_test_device = {
	.name = "tsm-test",
	.minor = MISC_DYNAMIC_MINOR,
	.fops = &tsm_test_fops,
	.mode = 0600,
};

/* The hardware's device: programs recognise the platform by its name. */
static const struct file_operations platform_fops = {
	.owner = THIS_MODULE,
};

static struct miscdevice platform_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.fops = &platform_fops,
	.mode = 0600,
};

static bool sev_attr_visible(int n)
{
	switch (n) {
	case TSM_REPORT_GENERATION:
	case TSM_REPORT_PROVIDER:
	case TSM_REPORT_PRIVLEVEL:
	case TSM_REPORT_PRIVLEVEL_FLOOR:
		return true;
	}

	return false;
}

static bool sev_bin_attr_visible(int n)
{
	switch (n) {
	case TSM_REPORT_INBLOB:
	case TSM_REPORT_OUTBLOB:
	case TSM_REPORT_AUXBLOB:
		return true;
	}

	return false;
}

static bool tdx_attr_visible(int n)
{
	return n == TSM_REPORT_GENERATION || n == TSM_REPORT_PROVIDER;
}

static bool tdx_bin_attr_visible(int n)
{
	return n == TSM_REPORT_INBLOB || n == TSM_REPORT_OUTBLOB;
}

/* What configfs shows and which device exists, as with the real drivers. */
static const struct {
	struct tsm_ops ops;
	const char *device;
} providers[] = {
	{
		.ops = {
			.name = "sev_guest",
			.report_new = tsm_test_report_new,
			.report_attr_visible = sev_attr_visible,
			.report_bin_attr_visible = sev_bin_attr_visible,
		},
		.device = "sev-guest",
	},
	{
		.ops = {
			.name = "tdx_guest",
			.report_new = tsm_test_report_new,
			.report_attr_visible = tdx_attr_visible,
			.report_bin_attr_visible = tdx_bin_attr_visible,
		},
		.device = "tdx_guest",
	},
};

static int __init register_provider(const struct tsm_ops *ops, const char *device)
{
	int rc;

	rc = misc_register(&tsm_test_device);
	if (rc)
		return rc;
	platform_device.name = device;
	rc = misc_register(&platform_device);
	if (rc)
		goto deregister_test;
	rc = tsm_register(ops, NULL);
	if (rc)
		goto deregister_platform;
	return 0;

deregister_platform:
	misc_deregister(&platform_device);
deregister_test:
	misc_deregister(&tsm_test_device);
	return rc;
}

static int __init tsm_test_init(void)
{
	size_t i;

	if (!strcmp(provider, "none"))
		return 0;
	for (i = 0; i < ARRAY_SIZE(providers); i++)
		if (!strcmp(provider, providers[i].ops.name))
			return register_provider(&providers[i].ops, providers[i].device);
	pr_err("unknown provider \"%s\"\n", provider);
	return -EINVAL;
}
device_initcall(tsm_test_init);

MODULE_DESCRIPTION("TSM provider for tests, answered by a process");
MODULE_LICENSE("GPL");
